#!/bin/busybox sh
# Runs what it is told on the control port and answers there. One job at a time:
#   run ID STDIN   the script /run/testbed/job-ID.sh; answers "exit ID STATUS"
#   where ID       writes where the job's tasks stand to the error port
#   kill ID        ends all of the job's tasks;   ping ID   answers "pong ID"
export PATH=/bin
port() {
    for entry in /sys/class/virtio-ports/*; do
        [ "$(cat "$entry/name" 2>/dev/null)" = "pellucid.$1" ] && echo "/dev/${entry##*/}" && return
    done
}
until [ -n "$(port control)" ] && [ -n "$(port stderr)" ]; do sleep 0.1; done
exec 3<>"$(port control)" 4>"$(port stdout)" 5>"$(port stderr)"
jobs=/host/sys/fs/cgroup/job
# No guest runs on CPU 0, whose virtualization state the emulator spoils from the threads of the others (decision 0022).
cpus=$(sed 's/^0-/1-/' /sys/devices/system/cpu/online)
work=/run/job
mkdir -p "$work"

# The host's "go" says that its end is open: before that a read is an end of file.
feed() {
    exec 6<"$(port stdin)"
    until read -r word <&6 && [ "$word" = go ]; do usleep 20000; done
    exec cat <&6
}

job() {
    id=$1
    rm -f "$work"/*
    mkfifo "$work/in" "$work/out" "$work/err"
    mkdir -p "$jobs-$id"
    cat <"$work/out" >&4 &
    out=$!
    cat <"$work/err" >&5 &
    err=$!
    source=/dev/null
    feeder=
    start="echo 0 >$jobs-$id/cgroup.procs; exec taskset -c $cpus chroot /host /bin/sh /run/testbed/job-$id.sh"
    case $2 in
    stdin) feed >"$work/in" 3>&- 4>&- 5>&- & feeder=$!; source=$work/in ;;
    tty) source=/dev/hvc0 ;;
    esac
    if [ "$2" = tty ]; then
        setsid -c sh -c "$start" <$source >$source 2>&1 3>&- 4>&- 5>&- &
        task=$!
        : >"$work/out" >"$work/err"
    else
        setsid sh -c "$start" <$source >"$work/out" 2>"$work/err" 3>&- 4>&- 5>&- &
        task=$!
    fi
    wait $task
    status=$?
    echo 1 >"$jobs-$id/cgroup.kill"
    [ -n "$feeder" ] && kill $feeder 2>/dev/null
    wait $out $err
    rmdir "$jobs-$id" 2>/dev/null
    printf '\036end of job %s\036' "$id" >&4
    printf '\036end of job %s\036' "$id" >&5
    echo "exit $id $status" >&3
}

# Where each task of a job stands, for a person who wants to know why it hangs; the console has more of those that cannot be woken.
where() {
    echo w >/proc/sysrq-trigger
    for task in $(cat "$jobs-$1/cgroup.procs"); do
        # Its words are in its memory, which a task that hangs can have locked.
        echo "task $task: $(timeout 1 tr '\0' ' ' <"/proc/$task/cmdline" || cat "/proc/$task/comm")"
        for thread in /proc/"$task"/task/*; do
            echo "  thread ${thread##*/} ($(cat "$thread/comm")): $(head -n 8 "$thread/stack" | sed 's/.* //' | tr '\n' ' ')"
        done
    done
}

echo "ready" >&3
while read -r verb id rest <&3; do
    case $verb in
    run) job "$id" "$rest" & ;;
    where) where "$id" >&5 2>/dev/null; echo "told $id" >&3 ;;
    kill) echo 1 >"$jobs-$id/cgroup.kill"; echo "killed $id" >&3 ;;
    ping) echo "pong $id" >&3 ;;
    esac
done
# The other end is gone, so nobody needs this machine any more.
poweroff -f
