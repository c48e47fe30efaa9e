# What the person who installs this server does once Debian's packages are on it.
# "$1" is the new system's root; the identity stands in the variables above.
set -eu
root="$1"

echo "$HOST_NAME" > "$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$HOST_NAME" > "$root/etc/hosts"
: > "$root/etc/resolv.conf"
chmod 0644 "$root/etc/hostname" "$root/etc/hosts" "$root/etc/resolv.conf"
echo "$MACHINE_ID" > "$root/etc/machine-id"
chmod 0444 "$root/etc/machine-id"
chroot "$root" usermod -p "$PASSWORD_HASH" root

cat > "$root/etc/fstab" <<EOF
UUID=$ROOT_UUID / ext4 errors=remount-ro 0 1
UUID=$ESP_ID /boot/efi vfat umask=0077 0 1
EOF

cat > "$root/etc/systemd/network/10-lan.network" <<EOF
[Match]
Name=$NIC_NAME

[Network]
Address=$NIC_ADDRESS
EOF
chroot "$root" systemctl enable systemd-networkd.service

# The boot loader, as `bootctl install` lays it out (without a random seed: the loader then never writes).
esp="$root/boot/efi"
mkdir -p "$esp/EFI/BOOT" "$esp/EFI/systemd" "$esp/EFI/Linux" "$esp/loader/entries" "$esp/$MACHINE_ID"
cp "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$esp/EFI/systemd/systemd-bootx64.efi"
cp "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$esp/EFI/BOOT/BOOTX64.EFI"
echo type1 > "$esp/loader/entries.srel"
printf '#timeout 3\n#console-mode keep\ndefault %s-*\n' "$MACHINE_ID" > "$esp/loader/loader.conf"

# The kernel's entry, written by Debian's own kernel-install.
mkdir -p "$root/etc/kernel"
echo "root=UUID=$ROOT_UUID ro console=ttyS0,115200" > "$root/etc/kernel/cmdline"
echo layout=bls > "$root/etc/kernel/install.conf"
for modules in "$root"/lib/modules/*; do
    version="${modules##*/}"
    chroot "$root" env BOOT_ROOT=/boot/efi MACHINE_ID="$MACHINE_ID" \
        kernel-install add "$version" "/boot/vmlinuz-$version"
done
# kernel-install names files from the mount point up, and the partition is not mounted here yet.
sed -i 's,/boot/efi/,/,' "$esp"/loader/entries/*.conf

# What no two installations have alike.
rm -f "$root/var/log/dpkg.log" "$root/var/log/alternatives.log" "$root"/var/log/apt/* \
    "$root/var/cache/ldconfig/aux-cache"
