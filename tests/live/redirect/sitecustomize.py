"""In a process with this folder on PYTHONPATH, what is sent to a vendor goes to the receiver of the tests instead."""

import os
from urllib.parse import urlsplit

import requests.adapters

VENDORS = (
    "api.opsgenie.com",
    "api.twilio.com",
    "discord.com",
    "events.pagerduty.com",
    "hooks.slack.com",
    "logic.azure.com",
    "mattermost.example.com",
)
send = requests.adapters.HTTPAdapter.send


def redirected(self, request, **options):
    address = urlsplit(request.url)
    if str(address.hostname).endswith(VENDORS):
        host = os.environ["TEST_RECEIVER"]
        request.url = address._replace(scheme="http", netloc=host, path=f"/{address.hostname}{address.path}").geturl()
    return send(self, request, **options)


requests.adapters.HTTPAdapter.send = redirected
