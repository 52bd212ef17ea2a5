"""OpenStack Swift with its S3 API on loopback; run by an interpreter that has Swift, not by ours.

Usage: swift_runner.py FOLDER USER KEY. One proxy, one server each for accounts, containers and objects, one replica.
Prints the proxy's port as soon as all accept connections, and ends with them when its standard input does.
"""

import getpass
import os
import signal
import socket
import sys
import time

import swift.common.utils

KINDS = ("account", "container", "object", "proxy")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def write(folder, name, text):
    with open(os.path.join(folder, name), "w") as file:
        file.write(text)


def configure(folder, ports, user, key):
    from swift.common.ring import RingBuilder

    os.makedirs(os.path.join(folder, "devices", "d1"))
    write(
        folder, "swift.conf", "[swift-hash]\nswift_hash_path_suffix=tests\n[storage-policy:0]\nname=one\ndefault=yes\n"
    )
    common = "[DEFAULT]\nbind_ip=127.0.0.1\nbind_port={}\nworkers=0\nuser={}\nswift_dir={}\nlog_address=/nowhere\n"
    for kind in KINDS[:3]:
        builder = RingBuilder(2, 1, 0)
        place = {"ip": "127.0.0.1", "port": ports[kind], "replication_ip": "127.0.0.1", "replication_port": ports[kind]}
        builder.add_dev({"region": 1, "zone": 1, "device": "d1", "weight": 1, "meta": "", **place})
        builder.rebalance()
        builder.get_ring().save(os.path.join(folder, kind + ".ring.gz"))
        write(
            folder,
            kind + "-server.conf",
            common.format(ports[kind], getpass.getuser(), folder)
            + f"devices={folder}/devices\nmount_check=false\nrecon_cache_path={folder}\n"
            + f"[pipeline:main]\npipeline={kind}-server\n[app:{kind}-server]\nuse=egg:swift#{kind}\n",
        )
    account, name = user.split(":")
    write(
        folder,
        "proxy-server.conf",
        common.format(ports["proxy"], getpass.getuser(), folder)
        + "[pipeline:main]\npipeline=s3api tempauth copy slo proxy-server\n"
        + "[app:proxy-server]\nuse=egg:swift#proxy\naccount_autocreate=true\n"
        + f"[filter:tempauth]\nuse=egg:swift#tempauth\nuser_{account}_{name}={key} .admin\n"
        + "[filter:s3api]\nuse=egg:swift#s3api\nlocation=us-east-1\nmin_segment_size=102400\n"
        + "[filter:copy]\nuse=egg:swift#copy\n[filter:slo]\nuse=egg:swift#slo\n",
    )


def serve(folder, kind):
    from swift.common.wsgi import run_wsgi

    log = os.open(os.path.join(folder, kind + ".log"), os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os._exit(run_wsgi(os.path.join(folder, kind + "-server.conf"), kind + "-server") or 0)


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def main():
    folder, user, key = sys.argv[1:]
    swift.common.utils.SWIFT_CONF_FILE = os.path.join(folder, "swift.conf")  # it is sought in /etc otherwise
    ports = {kind: free_port() for kind in KINDS}
    configure(folder, ports, user, key)
    children = []
    for kind in KINDS:
        child = os.fork()
        if not child:
            serve(folder, kind)
        children.append(child)
    try:
        deadline = time.monotonic() + 60
        while not all(accepts(port) for port in ports.values()):
            if time.monotonic() > deadline:
                sys.exit("swift did not come up; see " + folder)
            time.sleep(0.05)
        sys.stdout.write(str(ports["proxy"]) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
