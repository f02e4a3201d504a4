"""What runs between the kubelet and a container's process: one small parent per container.

A program of its own (`python -S -E -B sandbox.py PLAN`), of the modules alone that cost little to import: a
Pod has five of it, and with json, pathlib and contextlib each takes twice as long to start. So it reads a
plan as `marshal` writes it. It builds the container's view of the machine, starts the process in it
and stays its parent until the end, as containerd's shim does. SIGTERM is passed on; SIGQUIT ends everything
in the container; the same happens when the kubelet itself is gone, so nothing outlives the devcluster. Exits
with the process's code, 128+n when signal n ended it, or `START_ERROR` when it never ran.

`python sandbox.py PLAN kill PID SIGNAL` sends a signal to a container's first process from *inside* the
container, which is what `argoexec kill` does by `kubectl exec`: the receiver sees a sender of its own PID
namespace, while a signal of the runtime comes from outside (si_pid 0).
"""

from __future__ import annotations

import ctypes
import marshal
import os
import signal
import sys
import warnings  # noqa: F401 - os.execvpe imports it, and where that is called Python's files may not be seen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

USER_NAMESPACE = "user"
"""Own user, mount and PID namespaces: what an ordinary user may have on most kernels."""
ROOT_NAMESPACE = "root"
"""Own mount and PID namespaces, made by root: where user namespaces are switched off."""
NO_NAMESPACE = "none"
"""A plain process; the kubelet has rewritten the paths it is given."""

START_ERROR = 128
"""Exit code for a container that could not be started, as containerd reports it (reason StartError)."""

_HOST = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "nix")
"""What every image shows of the host, read-only."""
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_WRITABLE = ("tmp", "var/tmp", "dev/shm")

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_RDONLY, _MS_REMOUNT = 4096, 16384, 1 << 18, 1, 32
_SYS_MOUNT_SETATTR = 442
"""The same number on every architecture; Linux 5.12."""
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SIGNALS = {signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD}

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    """Run the container that the file names, or send a signal inside it."""
    with open(arguments[0], "rb") as file:
        plan = marshal.load(file)
    if len(arguments) == 4 and arguments[1] == "kill":
        return kill_inside(plan["isolation"], int(arguments[2]), int(arguments[3]))
    return run(plan)


def run(plan: dict[str, Any]) -> int:
    """Start the container of `plan` and wait for its end; see devcluster.containers.plan for the fields."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    if os.getppid() != plan["kubelet"]:
        return START_ERROR
    if plan["isolation"] == NO_NAMESPACE:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    else:
        unshare(plan["isolation"])
    child = os.fork()
    if child == 0:
        start(plan)
    _write(plan["pidFile"], str(child))
    return wait_for(child)


def wait_for(child: int) -> int:
    """Pass signals on until `child` ends, then end whatever it left behind; its exit code."""
    while True:
        caught = signal.sigwait(_SIGNALS)
        if caught == signal.SIGTERM:
            os.kill(child, signal.SIGTERM)
        elif caught == signal.SIGQUIT:
            os.kill(child, signal.SIGKILL)
        for pid, status in reaped():
            if pid == child:
                kill_descendants()
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def reaped() -> Iterator[tuple[int, int]]:
    """Every child that has ended, with its wait status."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
            yield ended
    except ChildProcessError:
        return


def kill_descendants() -> None:
    """Without a PID namespace: end the processes that the container's first one left behind."""
    try:
        while True:
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
                children = file.read().split()
            for pid in children:
                os.kill(int(pid), signal.SIGKILL)
            os.waitpid(-1, 0)
    except (ChildProcessError, FileNotFoundError):
        return


def start(plan: dict[str, Any]) -> NoReturn:
    """In the child: take the container's view and become its process; never returns."""
    try:
        if plan["isolation"] != NO_NAMESPACE:
            build_root(plan["root"], plan["mounts"], read_only=plan["readOnlyRoot"])
            os.chroot(plan["root"])
        os.chdir(plan["cwd"])
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.execvpe(plan["argv"][0], plan["argv"], plan["env"])
    except OSError as error:
        print(f"cannot start the container: {error}", file=sys.stderr, flush=True)
    os._exit(START_ERROR)


def unshare(isolation: str) -> None:
    """Leave the host's namespaces; with a user namespace, stay the same user in it."""
    flags = _CLONE_NEWNS | _CLONE_NEWPID
    if isolation == ROOT_NAMESPACE:
        _check(_libc.unshare(flags), "unshare")
        return
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(flags | _CLONE_NEWUSER), "unshare")
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")


def build_root(root: str, mounts: list[dict[str, Any]], *, read_only: bool) -> None:
    """Put the container's file system under `root`.

    An empty tmpfs, the host's programs read-only, a few devices, /proc and the container's own mounts.
    """
    mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    mount("devcluster", root, "tmpfs", 0)
    for name in _HOST:
        host = f"/{name}"
        if os.path.islink(host):
            os.symlink(os.readlink(host), f"{root}/{name}")
        elif os.path.isdir(host):
            bind(host, f"{root}/{name}", read_only=True)
    for name in _WRITABLE:
        os.makedirs(f"{root}/{name}")
        os.chmod(f"{root}/{name}", 0o1777)
    for name in _DEVICES:
        bind(f"/dev/{name}", f"{root}/dev/{name}", read_only=False)
    os.symlink("/proc/self/fd", f"{root}/dev/fd")
    mount_proc(f"{root}/proc")
    for each in sorted(mounts, key=lambda m: m["target"].split("/")):
        bind(each["source"], root + each["target"], read_only=each["readOnly"])
    if read_only:
        mount("none", root, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def mount_proc(target: str) -> None:
    """The PID namespace's own /proc, or the host's where a container around us hides parts of it."""
    os.mkdir(target)
    try:
        mount("proc", target, "proc", 0)
    except PermissionError:
        mount("/proc", target, None, _MS_BIND | _MS_REC)


def bind(source: str, target: str, *, read_only: bool) -> None:
    """Show `source` at `target`, making the mount point, as container runtimes do."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _write(target, "")
    mount(source, target, None, _MS_BIND | _MS_REC)
    if read_only:
        attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY, 0, 0, 0)
        path = ctypes.c_char_p(os.fsencode(target))
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        _check(
            _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, attributes, size),
            f"mount_setattr {target}",
        )


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    """The system call; OSError when it refuses."""
    type_ = kind.encode() if kind else None
    _check(
        _libc.mount(os.fsencode(source), os.fsencode(target), type_, ctypes.c_ulong(flags), None),
        f"mount {target}",
    )


def kill_inside(isolation: str, pid: int, number: int) -> int:
    """Send signal `number` to the first process of the container that the host knows as `pid`."""
    if isolation == NO_NAMESPACE:
        os.kill(pid, number)
        return 0
    kinds = ("user", "pid") if isolation == USER_NAMESPACE else ("pid",)
    opened = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
    for namespace in opened:
        _check(_libc.setns(namespace, 0), "setns")
    sender = os.fork()
    if sender == 0:
        os.kill(1, number)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(sender, 0)[1])


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), "prctl")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except OSError as error:
        print(f"cannot start the container: {error}", file=sys.stderr)
        code = START_ERROR
    sys.exit(code)
