"""The MOS models again, in plain float64 Python with branches, straight from the formulas."""

import math


def delay_impairment(delay_ms):
    if delay_ms <= 100:
        return 0.0
    x = math.log(delay_ms / 100) / math.log(2)
    return 25 * ((1 + x**6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2)


def loss_impairment(loss_percent, impairment, robustness, burst_ratio=1.0):
    if loss_percent == 0:
        return impairment
    share = loss_percent / (loss_percent / burst_ratio + robustness)
    return impairment + (95 - impairment) * share


def r_to_mos(rating):
    if rating <= 0:
        return 1.0
    if rating >= 100:
        return 4.5
    return max(1.0, 1 + 0.035 * rating + rating * (rating - 60) * (100 - rating) * 7e-6)


def voice(delay_ms, loss_percent, impairment, robustness):
    lost = loss_impairment(loss_percent, impairment, robustness)
    return r_to_mos(93.2 - delay_impairment(delay_ms) - lost)


def iqx(qos, alpha, beta, gamma):
    return min(5.0, max(1.0, alpha * math.exp(-beta * qos) + gamma))


def web(seconds, worst, best):
    if seconds <= best:
        return 5.0
    if seconds >= worst:
        return 1.0
    return 5 - 4 * (math.log(seconds) - math.log(best)) / (math.log(worst) - math.log(best))


def command(seconds):
    return 1 + 4 * math.exp(-0.36 * seconds)
