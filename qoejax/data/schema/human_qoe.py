"""Four collections of people's own scores, with the conditions that they were given under.

Cloud gaming: sessions under emulated delay, jitter and loss, scored 0 to 6 by the player.
Poqemon and VLC: video sessions of LiSSi, University of Paris-Est Créteil, scored 1 to 5 (Amour et
al., "Building a Large Dataset for Model-based QoE Prediction in the Mobile Environment", ACM MSWiM
2015). Their authors state no units; those below are read off the values.
P.1203: the open dataset of ITU-T P.1203 (Robitza et al., "HTTP Adaptive Streaming QoE Estimation
with ITU-T Rec. P.1203 – Open Databases and Software", ACM MMSys 2018): mean scores of 24 to 28
people, with their confidence intervals.

A class label does not exist: all rows are of the one class "session". Leaky are columns that say
who or which file was scored, the same person's other scores, and the outcome itself.
"""

from qoejax.data.schema.base import Column, Rating, Schema, category, levels, number, taxonomy

_PATTERNS = {"poqemon": ("poqemon*", "pokemon*")}
_SESSION = taxonomy({"session": ("session",)}, "session")

_WHO = "names the subject, whose taste is not to be learned by name"
_ORDER = "row number of a file that is sorted by score"
_USER = "the user's profile: with age and studies, nearly every user is the only one"
_DEVICE = "one value a device: with three devices, the device's name"
_VIDEO = "one value a video: with three videos, the video's name"
_FEEDBACK = "the same user's score of one aspect of the same session"


def _numbers(unit: str, why: str, *names: str) -> tuple[Column, ...]:
    return tuple(number(name, unit, why) for name in names)


CLOUD_GAMING_COLUMNS = (
    category("player", _WHO, leaky=True),
    category("game", "what was played"),
    category("testbed", "network and device of the session"),
    number("delay_down_ms", "ms", "delay added towards the player"),
    number("delay_up_ms", "ms", "delay added from the player"),
    number("jitter_down_ms", "ms", "jitter added towards the player"),
    number("jitter_up_ms", "ms", "jitter added from the player"),
    number("loss_down_pct", "%", "packets lost towards the player"),
    number("loss_up_pct", "%", "packets lost from the player"),
)

POQEMON_COLUMNS = (
    number("id", why=_ORDER, leaky=True),
    category("user_id", _WHO, leaky=True),
    number("QoA_VLCresolution", "lines", "height of the picture"),
    number("QoA_VLCbitrate", "kbit/s", "mean bitrate of the video"),
    number("QoA_VLCframerate", "frames/s", "frames shown"),
    number("QoA_VLCdropped", why="frames dropped"),
    number("QoA_VLCaudiorate", "frames/s", "audio frames played"),
    number("QoA_VLCaudioloss", why="audio frames lost"),
    number("QoA_BUFFERINGcount", why="number of times the player had to wait"),
    number("QoA_BUFFERINGtime", "ms", "time spent waiting"),
    category("QoS_type", "radio network: 1 EDGE, 2 UMTS, 3 HSPA, 4 HSPA+, 5 LTE"),
    category("QoS_operator", "network operator, by number"),
    category("QoD_model", _USER, leaky=True),
    category("QoD_os-version", _USER, leaky=True),
    number("QoD_api-level", why=_USER, leaky=True),
    category("QoU_sex", _USER, leaky=True),
    number("QoU_age", "years", _USER, leaky=True),
    category("QoU_Ustedy", _USER, leaky=True),
    *(number(f"QoF_{a}", why=_FEEDBACK, leaky=True) for a in ("begin", "shift", "audio", "video")),
)

VLC_COLUMNS = (
    number("id", why=_ORDER, leaky=True),
    number("QoS_bandwidth", "kbit/s", "bandwidth of the emulated link"),
    number("QoS_packet-loss", "%", "packets lost"),
    number("QoS_delay", "ms", "delay"),
    number("QoS_jitter", "ms", "jitter"),
    category("V_id-video", _VIDEO, leaky=True),
    category("V_content", "kind of video"),
    number("V_norm-bitrate", why=_VIDEO, leaky=True),
    number("V_complexity", why=_VIDEO, leaky=True),
    category("V_complexity-class", _VIDEO, leaky=True),
    number("QoA_resolution", "lines", "height of the picture"),
    number("QoA-bitrate", "kbit/s", "mean bitrate of the video"),
    number("QoA-frame_rate", "frames/s", "frames shown"),
    number("QoA_frame-drop", why="frames dropped"),
    number("QoA_audio-rate", "frames/s", "audio frames played"),
    number("QoA_audio-drop", why="audio frames dropped"),
    number("QoD-cpu_mhz-moy", "MHz", "mean clock of the processor"),
    number("QoD-cpu_mhz-avg", "MHz", "a second figure of that clock"),
    number("QoD_cpu-nbr", why=_DEVICE, leaky=True),
    number("QoD-cpu_core-nbr", why=_DEVICE, leaky=True),
    number("QoD_stepping", why=_DEVICE, leaky=True),
    number("QoD-cpu_bigo-mips", why=_DEVICE, leaky=True),
    category("QoD_carte-class", _DEVICE, leaky=True),
    category("QoD_screen-resolotion", _DEVICE, leaky=True),
    category("QoD_screen-dimension", _DEVICE, leaky=True),
    number("QoD_screen-mhz", "MHz", _DEVICE, leaky=True),
    category("QoD-screen_blug-type", _DEVICE, leaky=True),
    number("QoD-ram_clock-speed", "MHz", _DEVICE, leaky=True),
    number("QoD_ram-size", "MB", _DEVICE, leaky=True),
)

_BITRATE = "video bitrate over the session's seconds"
_PANEL = "about the panel's scores, not about the session"

P1203_COLUMNS = (
    category("pvs_id", "names the processed video, hence its source", leaky=True),
    category("context", "device it was watched on: mobile or pc"),
    number("n", why=_PANEL, leaky=True),
    number("sd", "MOS points", _PANEL, leaky=True),
    number("ci", "MOS points", _PANEL, leaky=True),
    number("initial_delay_s", "s", "loading time before the first picture"),
    number("stall_count", why="number of stalls after it"),
    number("stall_total_s", "s", "time stalled"),
    number("stall_max_s", "s", "longest stall"),
    number("n_sec", "s", "length of the video"),
    *_numbers("kbit/s", _BITRATE, "br_mean", "br_std", "br_min", "br_max", "br_first", "br_last"),
    *_numbers("lines", "height of the picture", "height_mean", "height_min", "height_max"),
    number("fps_mean", "frames/s", "mean frame rate"),
    number("quality_switches", why="number of changes of the representation"),
    number("target_mean", "kbit/s", "mean target bitrate of the representations"),
    number("gop_s", "s", "time between two key frames"),
    number("i_size", "bytes", "mean size of a key frame"),
    number("p_size", "bytes", "mean size of another frame"),
    number("p1203_mode0_O46", "MOS points", "the standard's own forecast", leaky=True),
)


def _schema(name: str, title: str, columns: tuple, score: str, rating: Rating) -> Schema:
    return Schema(
        title=title,
        columns=columns,
        label_column=score,
        taxonomies={name: _SESSION},
        aliases={},
        group="",
        absent_is_zero=False,
        clocks=frozenset(),
        patterns=_PATTERNS.get(name, (f"{name}*",)),
        foreign={},
        instructions=f"put {name}.csv (or .csv.gz) into manual_dir",
        rating=rating,
    )


SCHEMAS = (
    _schema(
        "cloud_gaming", "the cloud gaming scores", CLOUD_GAMING_COLUMNS, "QoE",
        Rating("gaming", 0.0, 6.0, subject=("player",), salt=19),
    ),
    _schema(
        "poqemon", "the Poqemon scores of mobile video", POQEMON_COLUMNS, "MOS",
        Rating("video", 1.0, 5.0, subject=("user_id",)),
    ),
    _schema(
        "vlc", "the VLC scores of video", VLC_COLUMNS, "MOS",
        Rating("video", 1.0, 5.0, subject=("V_id-video", "QoD_carte-class"), salt=16),
    ),
    _schema(
        "p1203", "the open dataset of P.1203 with features", P1203_COLUMNS, "mos",
        Rating("streaming", 1.0, 5.0, ("pvs_id",), salt=5, pattern=r"SRC\d+", interval="ci"),
    ),
)  # fmt: skip

CONFIGS = {name: level for schema in SCHEMAS for name, level in levels("human_qoe", schema).items()}
