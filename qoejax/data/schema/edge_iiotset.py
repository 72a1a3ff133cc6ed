"""Edge-IIoTset: packet records of tshark, fifteen types.

Ferrag et al., "Edge-IIoTset: A New Comprehensive Realistic Cyber Security Dataset of IoT and IIoT
Applications", IEEE Access 10:40281, 2022, doi 10.1109/ACCESS.2022.3165809. The authors drop the
columns marked "authors' list" before any learning. Column names are tshark's display filters.
"""

from qoejax.data.schema.base import Schema, category, fine_and_binary, levels, number, taxonomy

FAMILIES = {
    "Normal": ("Normal",),
    "DDoS": ("DDoS_UDP", "DDoS_ICMP", "DDoS_TCP", "DDoS_HTTP"),
    "Information gathering": ("Vulnerability_scanner", "Port_Scanning", "Fingerprinting"),
    "Injection": ("SQL_injection", "XSS", "Uploading"),
    "Malware": ("Password", "Backdoor", "Ransomware"),
    "MITM": ("MITM",),
}

_AUTHORS = "authors' list: identifies the capture, not the behaviour"
_IDENTITY = "names one device or tool of the testbed"
_STATE = "counter or checksum of the capture: identifies the connection"

COLUMNS = (
    number("frame.time", "s", "time of day; each class was captured at its own", leaky=True),
    category("ip.src_host", _AUTHORS, leaky=True),
    category("ip.dst_host", _AUTHORS, leaky=True),
    category("arp.dst.proto_ipv4", _AUTHORS, leaky=True),
    number("arp.opcode", why="1 request, 2 reply"),
    number("arp.hw.size", "bytes", "length of the hardware address"),
    category("arp.src.proto_ipv4", _AUTHORS, leaky=True),
    number("icmp.checksum", why=_STATE, leaky=True),
    number("icmp.seq_le", why=_STATE, leaky=True),
    number("icmp.transmit_timestamp", "ms", _AUTHORS, leaky=True),
    number("icmp.unused", why="unused field of ICMP errors"),
    category("http.file_data", _AUTHORS, leaky=True),
    number("http.content_length", "bytes", "length of the body"),
    category("http.request.uri.query", _AUTHORS, leaky=True),
    category("http.request.method", "HTTP method"),
    category("http.referer", _IDENTITY, leaky=True),
    category("http.request.full_uri", _AUTHORS, leaky=True),
    category("http.request.version", _IDENTITY, leaky=True),
    number("http.response", why="1 in a response"),
    number("http.tls_port", why="TLS port seen without encryption"),
    number("tcp.ack", why=_STATE, leaky=True),
    number("tcp.ack_raw", why=_STATE, leaky=True),
    number("tcp.checksum", why=_STATE, leaky=True),
    number("tcp.connection.fin", why="1 when a connection closes"),
    number("tcp.connection.rst", why="1 when a connection is reset"),
    number("tcp.connection.syn", why="1 when a connection is asked for"),
    number("tcp.connection.synack", why="1 when a connection is granted"),
    category("tcp.dstport", _AUTHORS, leaky=True),
    number("tcp.flags", why="bit mask of the TCP flags"),
    number("tcp.flags.ack", why="1 with the ACK flag"),
    number("tcp.len", "bytes", "length of the TCP payload"),
    category("tcp.options", _AUTHORS, leaky=True),
    category("tcp.payload", _AUTHORS, leaky=True),
    number("tcp.seq", why=_STATE, leaky=True),
    category("tcp.srcport", _AUTHORS, leaky=True),
    category("udp.port", _AUTHORS, leaky=True),
    number("udp.stream", why=_STATE, leaky=True),
    number("udp.time_delta", "s", "time since the last packet of the stream"),
    category("dns.qry.name", _IDENTITY, leaky=True),
    category("dns.qry.name.len", _IDENTITY, leaky=True),
    number("dns.qry.qu", why="1 for a unicast question"),
    number("dns.qry.type", why="type of the DNS question"),
    number("dns.retransmission", why="1 for a repeated message"),
    number("dns.retransmit_request", why="1 for a repeated question"),
    number("dns.retransmit_request_in", why=_STATE, leaky=True),
    category("mqtt.conack.flags", _IDENTITY, leaky=True),
    number("mqtt.conflag.cleansess", why="1 for a clean session"),
    number("mqtt.conflags", why="bit mask of the CONNECT flags"),
    number("mqtt.hdrflags", why="first byte of the MQTT header"),
    number("mqtt.len", "bytes", "length of the MQTT message"),
    number("mqtt.msg_decoded_as", why="how the message was decoded"),
    category("mqtt.msg", _AUTHORS, leaky=True),
    number("mqtt.msgtype", why="MQTT packet type"),
    number("mqtt.proto_len", "bytes", "length of the protocol name"),
    category("mqtt.protoname", _IDENTITY, leaky=True),
    category("mqtt.topic", _IDENTITY, leaky=True),
    number("mqtt.topic_len", "bytes", "length of the topic"),
    number("mqtt.ver", why="MQTT version"),
    number("mbtcp.len", "bytes", "length of the Modbus message"),
    number("mbtcp.trans_id", why=_STATE, leaky=True),
    number("mbtcp.unit_id", why="addressed Modbus unit"),
)

_FINE, _BINARY = fine_and_binary([f for fines in FAMILIES.values() for f in fines], "Normal")

PACKETS = Schema(
    title="Edge-IIoTset (61 features, Attack_label, Attack_type)",
    columns=COLUMNS,
    label_column="Attack_type",
    taxonomies={"15class": _FINE, "6class": taxonomy(FAMILIES, "Normal"), "binary": _BINARY},
    aliases={"OS_Fingerprinting": "Fingerprinting"},
    group="ip.src_host",
    absent_is_zero=True,
    clocks=frozenset({"frame.time"}),
    # The authors' two merged files repeat rows of the per-attack ones, and of each other.
    patterns=("dnn-edgeiiot-dataset*", "ml-edgeiiot-dataset*"),
    foreign={},
    instructions=(
        "put DNN-EdgeIIoT-dataset.csv or ML-EdgeIIoT-dataset.csv, or the per-attack files, of "
        "Edge-IIoTset into manual_dir (.csv or .csv.gz)"
    ),
)

CONFIGS = levels("edge_iiotset", PACKETS)
