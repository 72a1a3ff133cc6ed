/* Feeds chosen bytes to getrandom(2), so that libraries without a seed API meet published vectors.
   Callers reach it through the C library's getrandom or its syscall, so both are stood in for.
   Test only: built and preloaded by tests/wire/shim.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>

static const unsigned char *bytes;
static size_t left;
static int fed;

void shim_feed(const unsigned char *from, size_t n) {
  bytes = from;
  left = n;
  fed = 1;
}

size_t shim_left(void) { return left; }

static long draw(void *to, size_t n) {
  if (n > left) {
    errno = EIO;
    return -1;
  }
  memcpy(to, bytes, n);
  bytes += n;
  left -= n;
  return (long)n;
}

long syscall(long number, ...) {
  static long (*real)(long, ...);
  long a[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
  va_end(list);
  if (number == SYS_getrandom && fed) return draw((void *)a[0], (size_t)a[1]);
  if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

ssize_t getrandom(void *to, size_t n, unsigned int flags) {
  return syscall(SYS_getrandom, to, n, (long)flags, 0L, 0L, 0L);
}
