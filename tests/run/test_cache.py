"""The cache folder: where it is, when it is off, and that a cached executable gives equal bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from qoejax.run import cache


@pytest.fixture
def unset():
    """JAX as it is where nobody has chosen a folder; afterwards as it was."""
    names = (
        "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )  # fmt: skip
    before = {name: jax.config.values[name] for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_tests_have_no_cache():
    assert cache.folder() is None


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder() == tmp_path / ".cache" / "qoejax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "qoejax"
    monkeypatch.setenv(cache.VARIABLE, "~/mine")
    assert cache.folder() == tmp_path / "mine"


def test_executables_are_kept_and_give_the_same_bits(monkeypatch, tmp_path, unset):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    cache.keep_compiled()
    folder = tmp_path / "compiled"
    assert folder.stat().st_mode & 0o777 == 0o700
    compilation_cache.reset_cache()
    hits = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))

    def compute():
        x = jnp.linspace(-1.0, 1.0, 6000).reshape(60, 100)
        return np.asarray(jax.jit(lambda x: jnp.tanh(x @ x.T).sum(0) / 3)(x))

    first = compute()
    assert any(folder.iterdir())
    jax.clear_caches()
    hits.clear()
    second = compute()
    assert "/jax/compilation_cache/cache_hits" in hits
    np.testing.assert_array_equal(first, second)


def test_a_folder_that_somebody_chose_stays(monkeypatch, tmp_path, unset):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "ours"))
    cache.keep_compiled()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "theirs")
    assert not (tmp_path / "ours").exists()


def test_a_folder_that_cannot_be_made_is_said(monkeypatch, tmp_path, unset, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "x"))
    with caplog.at_level("WARNING", "qoejax"):
        cache.keep_compiled()
    assert f"{tmp_path}/file/x cannot be made" in caplog.text
