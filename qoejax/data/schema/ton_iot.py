"""TON_IoT network: connection records of the Zeek monitor, ten types.

Alsaedi et al., "TON_IoT Telemetry Dataset", IEEE Access 8:165130, 2020, doi
10.1109/ACCESS.2020.3022862, and Moustafa, "A new distributed architecture for evaluating AI-based
security systems at the edge", Sustainable Cities and Society 72:102994, 2021, doi
10.1016/j.scs.2021.102994. Column meanings follow the Zeek logs conn, dns, ssl, http and weird;
"-" is "not seen".
"""

from qoejax.data.schema.base import Schema, category, fine_and_binary, levels, number

TYPES = (
    "normal",
    "backdoor",
    "ddos",
    "dos",
    "injection",
    "mitm",
    "password",
    "ransomware",
    "scanning",
    "xss",
)

_HOST = "the attackers' addresses are fixed"
_PORT = "attack tools and their victims keep to a few ports of this testbed"
_TEXT = "text typed by the tools of this testbed"

COLUMNS = (
    category("src_ip", _HOST, leaky=True),
    category("src_port", _PORT, leaky=True),
    category("dst_ip", _HOST, leaky=True),
    category("dst_port", _PORT, leaky=True),
    category("proto", "transport protocol"),
    category("service", "application protocol that Zeek recognised"),
    number("duration", "s", "time from first to last packet"),
    number("src_bytes", "bytes", "payload sent by the source"),
    number("dst_bytes", "bytes", "payload sent by the destination"),
    category("conn_state", "how the connection opened and closed"),
    number("missed_bytes", "bytes", "gaps in what the monitor saw"),
    number("src_pkts", "packets", "packets sent by the source"),
    number("src_ip_bytes", "bytes", "bytes sent by the source, IP headers included"),
    number("dst_pkts", "packets", "packets sent by the destination"),
    number("dst_ip_bytes", "bytes", "bytes sent by the destination, IP headers included"),
    category("dns_query", _TEXT, leaky=True),
    category("dns_qclass", "class of the DNS question"),
    category("dns_qtype", "type of the DNS question"),
    category("dns_rcode", "code of the DNS answer"),
    category("dns_AA", "authoritative answer"),
    category("dns_RD", "recursion desired"),
    category("dns_RA", "recursion available"),
    category("dns_rejected", "the server refused to answer"),
    category("ssl_version", "version of TLS"),
    category("ssl_cipher", "cipher suite of TLS"),
    category("ssl_resumed", "a TLS session was resumed"),
    category("ssl_established", "the TLS handshake succeeded"),
    category("ssl_subject", "certificate of one host", leaky=True),
    category("ssl_issuer", "certificate of one host", leaky=True),
    number("http_trans_depth", "requests", "depth of the pipeline of requests"),
    category("http_method", "HTTP method"),
    category("http_uri", _TEXT, leaky=True),
    category("http_version", "HTTP version"),
    number("http_request_body_len", "bytes", "size of the request's body"),
    number("http_response_body_len", "bytes", "size of the response's body"),
    category("http_status_code", "HTTP status"),
    category("http_user_agent", "names the attack tool", leaky=True),
    category("http_orig_mime_types", "type of the request's body"),
    category("http_resp_mime_types", "type of the response's body"),
    category("weird_name", "protocol anomaly that Zeek noted"),
    category("weird_addl", "free text of the anomaly", leaky=True),
    category("weird_notice", "the anomaly raised a notice"),
)

_FINE, _BINARY = fine_and_binary(TYPES, "normal")

NETWORK = Schema(
    title="the network records of TON_IoT (44 columns)",
    columns=COLUMNS,
    label_column="type",
    taxonomies={"10class": _FINE, "binary": _BINARY},
    aliases={},
    group="src_ip",
    absent_is_zero=True,
    clocks=frozenset(),
    patterns=("train_test_network*",),
    foreign={},
    instructions="put Train_Test_Network.csv (or .csv.gz) of TON_IoT into manual_dir",
)

CONFIGS = levels("ton_iot", NETWORK)
