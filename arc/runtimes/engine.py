"""The container engine, through its SDK: one method per request, in the words of this package.

Only this module knows the SDK. Every failure is a TaskFailed (or RuntimeUnavailable from connect and ping) whose text
is `what was tried: why not`; what is gone already counts as removed.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import docker.auth
import docker.errors
import docker.types
import docker.utils
import docker.utils.config
import requests
import urllib3

from arc.runtimes.base import RuntimeUnavailable, TaskFailed
from arc.runtimes.door import CONNECT_S, address_of, knock, unavailable
from arc.runtimes.names import INSTANCE_LABEL, TASK_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

REQUEST_S = 60.0  # seconds for a request that the engine answers at once
NETWORK_S = 10.0
REMOVE_TRIES = 5  # 200 ms apart at first, doubling: something may still be detaching
REMOVE_PAUSE_S = 0.2

# OSError: all of requests; ValueError: an answer that is no JSON
_FAILURES = (OSError, ValueError, docker.errors.DockerException, urllib3.exceptions.HTTPError)

log = logging.getLogger(__name__)


class Engine:
    """Any thread may call it. Raises RuntimeUnavailable when no engine answers.

    address: empty for DOCKER_HOST or the usual socket.
    """

    def __init__(self, address: str = "") -> None:
        self.address = address_of(address)
        settings = docker.utils.kwargs_from_env({**os.environ, "DOCKER_HOST": self.address})
        version = os.environ.get("DOCKER_API_VERSION") or "auto"
        knock(self.address)
        try:
            self._client = docker.APIClient(version=version, timeout=CONNECT_S, **settings)
        except _FAILURES as exc:
            raise self._unavailable(exc) from exc
        try:
            self.ping()
        except RuntimeUnavailable:
            self.close()
            raise
        self._client.timeout = REQUEST_S

    def ping(self) -> None:
        """Raises RuntimeUnavailable."""
        knock(self.address)
        try:
            self._client.get(f"{self._url}/_ping", timeout=CONNECT_S).raise_for_status()
        except _FAILURES as exc:
            raise self._unavailable(exc) from exc

    def close(self) -> None:
        self._client.close()

    # images

    def image_names(self, image: str) -> list[str] | None:
        """Tags and digests under which an image is known here; None when it is not."""
        with _explained(f"error pulling image: {image}"):
            try:
                found = self._client.inspect_image(image)
            except docker.errors.NotFound:
                return None
        return [*(found.get("RepoTags") or ()), *(found.get("RepoDigests") or ())]

    def pull(self, image: str, auth: Mapping[str, str] | None, on_line: Callable[[bytes], None]) -> None:
        """Blocks until the image is here. on_line is told the engine's JSON lines."""
        repository, tag = docker.utils.parse_repository_tag(image)
        headers = {} if auth is None else {"X-Registry-Auth": docker.auth.encode_header(dict(auth))}
        parameters = {"fromImage": repository, "tag": tag or "latest"}
        with (
            _explained(f"error pulling image: {image}"),
            self._client.post(
                f"{self._url}/images/create", params=parameters, headers=headers, stream=True, timeout=None
            ) as response,
        ):
            self._client._raise_for_status(response)
            for line in response.iter_lines():
                on_line(line + b"\n")
                if (error := json.loads(line).get("error")) is not None:
                    raise TaskFailed(f"error pulling image: {image}: {error}")

    def credentials(self, config_path: str, image: str) -> Mapping[str, str] | None:
        """What the client's configuration knows for the registry of an image."""
        with _explained(f"error pulling image: {image}"):
            repository, _ = docker.utils.parse_repository_tag(image)
            registry, _ = docker.auth.resolve_repository_name(repository)
            return _client_config(config_path).resolve_authconfig(registry) or None

    def remove_image(self, image: str) -> bool:
        """False when it is still needed or gone."""
        try:
            self._client.remove_image(image)
        except _FAILURES as exc:
            log.info("image %s stays: %s", image, _cause(exc))
            return False
        return True

    # volumes and networks

    def create_volume(self, labels: Mapping[str, str], options: Mapping[str, str]) -> str:
        with _explained("error creating volume"):
            volume = self._client.create_volume(labels=dict(labels), driver_opts=dict(options))
        return str(volume["Name"])

    def remove_volume(self, name: str) -> None:
        _remove(f"volume {name}", lambda: self._client.remove_volume(name, force=True))

    def create_network(self, name: str, labels: Mapping[str, str]) -> None:
        with _explained("error creating network"):
            self._client.create_network(name, driver="bridge", labels=dict(labels))

    def remove_network(self, name: str) -> None:
        _remove(f"network {name}", lambda: self._client.remove_network(name))

    def connect(self, container: str, network: str, aliases: list[str]) -> None:
        with _explained(f"error connecting container to network {network}"):
            self._client.connect_container_to_network(container, network, aliases=aliases)

    # containers

    def create_container(self, config: Mapping[str, Any]) -> str:
        with _explained("error creating container"):
            return str(self._client.create_container_from_config(dict(config))["Id"])

    def put(self, container: str, path: str, archive: bytes) -> None:
        """Unpack a tar archive below a path of the container."""
        with _explained("error copying files to container"):
            self._client.put_archive(container, path, archive)

    def get(self, container: str, path: str, max_bytes: int) -> tuple[bytes, int]:
        """A tar archive with one file of the container, and the size of that file; no archive above max_bytes.

        Nothing and 0 when the file is gone.
        """
        with _explained("error copying files from container"):
            try:
                chunks, stat = self._client.get_archive(container, path)
            except docker.errors.NotFound:
                return b"", 0
            size_bytes = int(stat["size"])
            archive = b"".join(chunks) if size_bytes <= max_bytes else b""
            chunks.close()
        return archive, size_bytes

    def attach(self, container: str) -> OutputStream:
        """What a container will write from now on."""
        with _explained("error attaching to container"):
            return OutputStream(self._client.attach(container, stream=True))

    def start(self, container: str) -> None:
        with _explained(f"error starting container {container}"):
            self._client.start(container)

    def wait(self, container: str) -> int:
        """Blocks until a container that was started has ended; its exit status."""
        with _explained("error waiting for container"):
            return int(self._client.wait(container)["StatusCode"])

    def published_port(self, container: str, port: int) -> int | None:
        """Port of the host; None while the container does not run."""
        with _explained("error inspecting container"):
            found = self._client.port(container, port)
        return int(found[0]["HostPort"]) if found else None

    def remove_container(self, container: str) -> None:
        """Kill and remove it, with the volumes that only it knows."""
        _remove(f"container {container}", lambda: self._client.remove_container(container, v=True, force=True))

    # what a dead server left

    def strays(self, instance: str) -> list[tuple[str, Callable[[], None]]]:
        """Task id and removal of everything labelled with an instance; containers first, as they hold the rest."""
        filters = {"label": [f"{INSTANCE_LABEL}={instance}"]}
        with _explained("error listing what earlier runs left"):
            containers = self._client.containers(all=True, filters=filters)
            networks = self._client.networks(filters=filters)
            volumes = self._client.volumes(filters=filters)["Volumes"] or []
        return [
            *((_task(item), lambda key=item["Id"]: self.remove_container(key)) for item in containers),
            *((_task(item), lambda key=item["Id"]: self.remove_network(key)) for item in networks),
            *((_task(item), lambda key=item["Name"]: self.remove_volume(key)) for item in volumes),
        ]

    @property
    def _url(self) -> str:
        return f"{self._client.base_url}/v{self._client.api_version}"

    def _unavailable(self, exc: Exception) -> RuntimeUnavailable:
        return unavailable(self.address, _cause(exc))


class OutputStream:
    """stdout and stderr of a container as they come. One thread reads, another may stop it."""

    def __init__(self, stream: docker.types.CancellableStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        """Ends with the container or when it is stopped."""
        try:
            yield from self._stream
        finally:
            self._stream._response.close()

    def stop(self) -> None:
        with suppress(OSError, AttributeError):  # at its end already
            self._stream.close()


def _client_config(path: str) -> docker.auth.AuthConfig:
    """Credentials of registries; entries with a plain name and password too, which the SDK leaves out."""
    found = path or docker.utils.config.find_config_file()
    if not found:
        return docker.auth.AuthConfig({})
    config = json.loads(Path(found).read_bytes())
    for entry in config.get("auths", {}).values():
        if "username" in entry and "auth" not in entry:
            entry["auth"] = base64.b64encode(f"{entry['username']}:{entry.get('password', '')}".encode()).decode()
    return docker.auth.load_config(config_dict=config)


def _task(item: Mapping[str, Any]) -> str:
    return str((item.get("Labels") or {}).get(TASK_LABEL, ""))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Failures of the engine become the error of the task."""
    try:
        yield
    except _FAILURES as exc:
        raise TaskFailed(f"{what}: {_cause(exc)}") from exc


def _cause(exc: Exception) -> str:
    """One sentence; the engine's own when it gave one."""
    if isinstance(exc, docker.errors.APIError) and exc.explanation:
        return f"Error response from daemon: {exc.explanation}"
    if isinstance(exc, requests.ConnectionError):
        return "no connection"
    return str(exc)


def _remove(what: str, call: Callable[[], object]) -> None:
    """Never raises: what stays is labelled, and the next reap() finds it."""
    for attempt in range(REMOVE_TRIES):
        try:
            call()
        except docker.errors.NotFound:
            return
        except _FAILURES as exc:
            if attempt == REMOVE_TRIES - 1 or isinstance(exc, requests.ConnectionError):
                log.warning("%s cannot be removed: %s", what, _cause(exc))
                return
            time.sleep(REMOVE_PAUSE_S * 2**attempt)
        else:
            return
