#!/bin/busybox sh
# The init of the physical server: the developer's root, read-only, with the file
# systems of a running machine over it; then the agent.
/bin/busybox --install -s /bin
export PATH=/bin
# Two machines with a CPU each, one with and one without interrupt controllers: KVM_CREATE_VM, KVM_CREATE_IRQCHIP, KVM_CREATE_VCPU.
keep='
open(my $kvm, "+<", "/dev/kvm") or die "testbed: /dev/kvm: $!\n";
for my $chips (1, 0) {
    my $fd = ioctl($kvm, 0xae01, 0) or die "testbed: no machine to keep: $!\n";
    open(my $vm, "+<&=", $fd + 0) or die "testbed: $!\n";
    !$chips or ioctl($vm, 0xae60, 0) or die "testbed: no interrupt controllers: $!\n";
    ioctl($vm, 0xae41, 0) or die "testbed: no CPU to keep: $!\n";
    push @kept, $vm;
}
sleep;
'
say() { echo "testbed: $*" >/dev/console; }
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
say "init"
while read -r module; do
    insmod "/modules/$module" || say "module $module did not load"
done </modules/order
say "modules loaded"

nine="trans=virtio,version=9p2000.L,msize=512000"
mount -t 9p -o "$nine,ro,cache=loose" host /host || say "the root did not mount"
mount --move /dev /host/dev
mount --bind /host/dev /dev
mkdir -p /host/dev/pts /host/dev/shm /host/dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /host/dev/pts
mount -t tmpfs -o mode=1777 shm /host/dev/shm
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
mount -t proc proc /host/proc
mount -t sysfs sys /host/sys
mount -t debugfs debug /host/sys/kernel/debug
mount -t cgroup2 cgroup /host/sys/fs/cgroup
mount -t tmpfs -o mode=755 run /host/run
# What is under /tmp can be read; what is written there is gone with the machine.
mkdir -p /run/over
mount -t tmpfs over /run/over
mkdir -p /run/over/upper /run/over/work
chmod 1777 /run/over/upper
mount -t overlay -o lowerdir=/host/tmp,upperdir=/run/over/upper,workdir=/run/over/work tmp /host/tmp ||
    mount -t tmpfs -o mode=1777 tmp /host/tmp
mkdir -p /host/run/testbed /host/run/lock
mount -t 9p -o "$nine,rw,cache=mmap" share /host/run/testbed || say "the share did not mount"
for part in cpu cpuset memory; do echo "+$part" >/host/sys/fs/cgroup/cgroup.subtree_control; done 2>/dev/null
# The first and the last virtual machine, and group of a kind, of a host switch branches in its kernel's code, which CPUs that
# execute it see half done where the emulator is at fault (stale.rs). So there is one of each from now on that nobody uses.
mkdir -p /host/sys/fs/cgroup/kept && echo "100000 100000" >/host/sys/fs/cgroup/kept/cpu.max
if [ -c /host/dev/kvm ] && [ -x /host/usr/bin/perl ]; then
    setsid chroot /host /usr/bin/perl -e "$keep" </dev/null >/dev/console 2>&1 &
fi
ip link set lo up
hostname physical
ulimit -l unlimited
say "ready"
setsid /agent </dev/null >/dev/console 2>&1 &
exec /bin/busybox init </dev/null >/dev/console 2>&1
