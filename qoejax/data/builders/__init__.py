"""One package per TFDS dataset. Importing this one registers them all."""

from qoejax.data.builders.ciciot2023 import ciciot2023_dataset_builder as ciciot2023
from qoejax.data.builders.edge_iiotset import edge_iiotset_dataset_builder as edge_iiotset
from qoejax.data.builders.human_qoe import human_qoe_dataset_builder as human_qoe
from qoejax.data.builders.pcap_folder import pcap_folder_dataset_builder as pcap_folder
from qoejax.data.builders.simulated_iot import simulated_iot_dataset_builder as simulated_iot
from qoejax.data.builders.ton_iot import ton_iot_dataset_builder as ton_iot
from qoejax.data.packed import PackedBuilder

BUILDERS: dict[str, type[PackedBuilder]] = {
    "ciciot2023": ciciot2023.Builder,
    "edge_iiotset": edge_iiotset.Builder,
    "human_qoe": human_qoe.Builder,
    "pcap_folder": pcap_folder.Builder,
    "simulated_iot": simulated_iot.Builder,
    "ton_iot": ton_iot.Builder,
}
