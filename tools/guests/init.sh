#!/bin/sh
# The first process of a test guest. The kernel's command line sets its variables: PROCESSES=200 CHURN=1 MODULES=12 DUMP=1.
# Then it executes the lines it reads from the console, one by one, and says "=done STATUS" after each.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
if [ -c /dev/ttyS0 ]; then
    exec </dev/ttyS0 >/dev/ttyS0 2>&1
    stty raw -echo
else # a kernel without a driver for it
    mkfifo /tmp/in /tmp/out
    uart <>/tmp/out >/tmp/in &
    exec </tmp/in >/tmp/out 2>&1
fi
mkdir -p /oracle

# What comes first serves the others: the oracle leaves through a virtio port. MODULES counts the others.
load() { # load COUNT
    count=0
    while read -r module; do
        case $module in
        virtio*) insmod "/mod/$module" ;;
        *) [ "$count" -lt "$1" ] && insmod "/mod/$module" && count=$((count + 1)) ;;
        esac
    done </mod/order
}

# Processes and modules as the guest sees them. The shell expands the names itself: cat is in none of them.
ask() {
    cat /proc/[0-9]*/task/[0-9]*/status >/oracle/status 2>/dev/null
    cat /proc/modules >/oracle/modules
}

port() { # port NAME: the device of a virtio port
    for entry in /sys/class/virtio-ports/*; do
        [ "$(cat "$entry/name" 2>/dev/null)" = "$1" ] && echo "/dev/${entry##*/}" && return
    done
    return 1
}

# Everything at once, for whoever compares: symbols and types too. The host side is read by tools/guests/oracle.py.
dump() {
    ask
    cat /proc/kallsyms >/oracle/kallsyms
    cat /sys/kernel/btf/vmlinux >/oracle/btf 2>/dev/null
    uname -r >/oracle/release
    cat /proc/cmdline >/oracle/cmdline
    send
}

send() { # a tar file through the port, or over the console where the kernel has no ports
    if device=$(port oracle); then
        (cd /oracle && tar cf - ./*) >"$device"
    else
        (cd /oracle && tar cf - ./*) | gzip -1 >/tmp/told
        echo "=told $(wc -c </tmp/told)"
        cat /tmp/told
    fi
}

load "${MODULES:-0}"
[ "${PROCESSES:-0}" -gt 0 ] && crowd "$PROCESSES" ${CHURN:+churn} >/oracle/crowd &
while [ "${PROCESSES:-0}" -gt 0 ] && [ ! -s /oracle/crowd ]; do usleep 100000; done
[ -n "$DUMP" ] && dump
echo "=ready"
while read -r line; do
    eval "$line"
    echo "=done $?"
done
poweroff -f
