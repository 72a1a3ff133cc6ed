"""TFDS dataset pcap_folder."""
