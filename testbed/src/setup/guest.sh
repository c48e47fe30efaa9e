#!/bin/busybox sh
# The init of a logical server under test. Everything it says goes to the console.
bb=/bin/busybox
$bb --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
echo "init: reached"
while read -r module; do insmod "/modules/$module" 2>/dev/null; done </modules/order
echo "init: modules loaded"

# Words on the kernel's command line: do=SCRIPT (underscores are spaces) runs and powers off.
for word in $(cat /proc/cmdline); do
    case $word in
    do=poweroff) poweroff -f ;;
    do=reboot) reboot -f ;;
    do=*) sh -c "$(echo "${word#do=}" | tr _ ' ')"; echo "init: status $?"; poweroff -f ;;
    esac
done
# acpid powers the machine off on the power button.
mkdir -p /etc/acpi/PWRF
printf '#!/bin/sh\necho "init: power button"\npoweroff -f\n' >/etc/acpi/PWRF/00000080
chmod +x /etc/acpi/PWRF/00000080
acpid 2>/dev/null
echo "init: shell"
while :; do setsid -c sh -i </dev/ttyS0 >/dev/ttyS0 2>&1; sleep 1; done
