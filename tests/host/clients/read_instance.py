"""What cloud-init and waagent make of the metadata service, by their own functions; as JSON. Argument:
cloud-init or waagent. Runs under the suite's or the system's Python with the unpacked packages' modules."""

import json
import logging
import sys
import time
from importlib import import_module

PATIENCE_S = 60


def cloud_init() -> object:
    """Fetched as at a boot, retries and the older api-version included, then read by what asks it for the
    host's name, its user and its network."""
    azure = import_module("cloudinit.sources.DataSourceAzure")  # some versions reset the log as they load
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, force=True)
    try:
        imds = import_module("cloudinit.sources.azure.imds")
    except ImportError:  # before 23.1: a method, which uses nothing of its object
        told = azure.DataSourceAzure.get_imds_data_with_api_fallback(None, retries=10)
        more = {}
    else:
        told = imds.fetch_metadata_with_api_fallback(retry_deadline=time.monotonic() + PATIENCE_S)
        more = {"apply_network_config_for_secondary_ips": True}
    return {
        "told": told,
        "host name": azure._hostname_from_imds(told),
        "user": azure._username_from_imds(told),
        "network": azure.generate_network_config_from_instance_network_metadata(told["network"], **more),
    }


def waagent() -> object:
    """Its health check of the service, and what it knows of the machine by it."""
    imds = import_module("azurelinuxagent.common.protocol.imds")
    try:
        client = imds.ImdsClient()
    except TypeError:  # before 2.8: the address of another service, asked when this one is out of reach
        client = imds.ImdsClient("127.0.0.1")
    healthy, why = client.validate()
    return {"healthy": healthy, "why": why, "compute": vars(client.get_compute())}


if __name__ == "__main__":
    json.dump({"cloud-init": cloud_init, "waagent": waagent}[sys.argv[1]](), sys.stdout)
