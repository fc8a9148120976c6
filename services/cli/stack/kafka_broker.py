"""A real Kafka broker (KRaft, broker and controller in one process) from the published jars.

`install` fetches the jars once with Maven, formats a data folder and records a class archive: a broker then starts in about
1.5 s instead of 3.5 s. Every new data folder is a copy of the formatted one, which saves another start of the JVM.

    python -m services.cli.stack.kafka_broker install
    python -m services.cli.stack.kafka_broker FOLDER PORT CONTROLLER_PORT      becomes the broker
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from services.cli.stack.port_search import free_port
from services.cli.stack.probes import kafka_answers
from services.cli.stack.software import LOCAL, MissingError, installed, kafka_home, program, versions

CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"  # 16 bytes in base64url; fixed, so that data outlives a restart
ARCHIVE = "classes.jsa"
KAFKA = LOCAL / "kafka"  # shared with the image: jars, settings, options of the JVM


def _java(*arguments: str) -> list[str]:
    """A JVM command with the broker's class path; the text of the path is part of what the class archive checks."""
    options = (f"@{KAFKA}/jvm.options", "-cp", f"{kafka_home()}/lib/*")
    return [program("java", "default-jre-headless"), *options, *arguments]


def prepare(directory: Path, port: int, controller_port: int) -> list[str]:
    """Write the broker's settings, make its data folder unless there is one, and return the command that runs it."""
    home = kafka_home()
    if not installed(home):
        raise MissingError(f"Kafka is not in {home}. Run: make setup")
    data = directory / "data"
    if not (data / "meta.properties").exists():
        shutil.copytree(home / "formatted", data, dirs_exist_ok=True)
    settings = _write_settings(directory, port, controller_port)
    return _java(f"-XX:SharedArchiveFile={home}/{ARCHIVE}", "kafka.Kafka", str(settings))


def _write_settings(directory: Path, port: int, controller_port: int) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    settings = directory / "server.properties"
    text = (KAFKA / "broker.properties").read_text()
    places = {"PORT": port, "CONTROLLER_PORT": controller_port, "DATA": directory / "data"}
    for name, value in {"LISTEN": "127.0.0.1", "ADVERTISED": "127.0.0.1", **places}.items():
        text = text.replace(f"@{name}@", str(value))
    settings.write_text(text)
    return settings


def install() -> None:
    """Fetch the jars, format a data folder, start once to record the class archive. Quick when it was done before."""
    home = kafka_home()
    if installed(home):
        return
    pinned = versions()["kafka"]
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    subprocess.run(
        [
            program("mvn", "maven"), "-q", "-B", "-ntp", f"-Dkafka.version={pinned['version']}", f"-Dscala.version={pinned['scala']}",
            f"-Dslf4j.version={pinned['slf4j']}", "-f", str(KAFKA / "pom.xml"), "dependency:copy-dependencies",
            "-DincludeScope=runtime", f"-DoutputDirectory={home}/lib",
        ],
        check=True,
    )  # fmt: skip
    scratch = home / "scratch"
    port = free_port()
    controller_port = free_port(port + 1)
    settings = str(_write_settings(scratch, port, controller_port))
    with (home / "install.log").open("wb") as log:
        format_data = _java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", settings)
        subprocess.run(format_data, check=True, stdout=log, stderr=subprocess.STDOUT)
        shutil.copytree(scratch / "data", home / "formatted")
        broker = _java(f"-XX:ArchiveClassesAtExit={home}/{ARCHIVE}", "kafka.Kafka", settings)
        process = subprocess.Popen(broker, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_it_answers(process, port)
        finally:
            process.terminate()
            process.wait()
    shutil.rmtree(scratch)
    (home / "installed").touch()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    while kafka_answers(port):
        if process.poll() is not None:
            raise MissingError(f"Kafka was fetched but does not start, see {kafka_home()}/install.log")
        time.sleep(0.1)


def main() -> None:
    """Install, or become a broker."""
    try:
        if sys.argv[1:] == ["install"]:
            install()
        else:
            folder, port, controller_port = sys.argv[1:]
            command = prepare(Path(folder), int(port), int(controller_port))
            os.execv(command[0], command)  # noqa: S606 - the supervisor watches this very process
    except MissingError as missing:
        sys.exit(f"kafka: {missing}")


if __name__ == "__main__":
    main()
