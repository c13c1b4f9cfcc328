# shellcheck shell=dash
# What scenarios are written with. Sourced by the guest's init under `set -eu`; descriptor 3 is the control channel.
#
# The channel carries lines. Guest to host: `ready k=v…`, `result NAME k=v…`, `sync NAME words…`, `exit CODE`. Host to guest:
# `go NAME words…`, which answers the sync of that name. Results are echoed on the console for people.

# result NAME [key=value…] — reports figures or facts to the host.
result() {
	echo "VTARGET-RESULT $*"
	echo "result $*" >&3
}

# fail WORDS… — says why and ends the scenario.
fail() {
	result failure "why=$(echo "$*" | tr ' ' '_')"
	exit 1
}

# sync_host NAME [words…] — tells the host that this point is reached and waits for its `go`; prints the words that came with it.
sync_host() {
	echo "VTARGET-SYNC $*" >&2
	echo "sync $*" >&3
	read -r verb name words <&3
	[ "$verb $name" = "go $1" ] || fail "expected go $1 but the host said $verb $name"
	echo "$words"
}

# within SECONDS COMMAND… — repeats the command until it succeeds; fails when it has not within that time.
within() {
	deadline=$(($(cut -d. -f1 /proc/uptime) + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(cut -d. -f1 /proc/uptime)" -lt "$deadline" ] || return 1
		sleep 0.1
	done
}

find_controller() {
	for controller in /sys/class/nvme/nvme*; do
		if [ "$(tr -d ' ' <"$controller/serial" 2>/dev/null)" = "$1" ]; then
			basename "$controller"
			return 0
		fi
	done
	return 1
}

find_disk() {
	# With native multipath the block device hangs below the subsystem, without it below the controller; its name always
	# starts with the instance number of one or the other, so ask which namespaces exist and whose serial they carry.
	for block in /sys/class/block/nvme*n*; do
		[ -e "$block/nsid" ] || continue
		[ "$(cat "$block/nsid")" = "${2:-1}" ] || continue
		[ "$(tr -d ' ' <"$block/device/serial" 2>/dev/null)" = "$1" ] || continue
		[ -b "/dev/$(basename "$block")" ] || continue
		echo "/dev/$(basename "$block")"
		return 0
	done
	# A virtio disk has no namespaces.
	[ "${2:-1}" = 1 ] || return 1
	for block in /sys/class/block/vd*; do
		[ "$(cat "$block/serial" 2>/dev/null)" = "$1" ] || continue
		[ -b "/dev/$(basename "$block")" ] || continue
		echo "/dev/$(basename "$block")"
		return 0
	done
	return 1
}

# controller SERIAL — prints the name (nvme0) of the controller with that serial number once it is there.
controller() {
	within 60 find_controller "$1" || fail "no controller with serial $1 appeared"
	find_controller "$1"
}

# disk SERIAL [NSID] — prints the block device (/dev/nvme0n1) of that controller's namespace, by default 1, or the virtio disk
# (/dev/vda) with that serial number, once it is there.
disk() {
	within 60 find_disk "$@" || fail "no disk with serial $1, namespace ${2:-1}, appeared"
	find_disk "$@"
}

# partition DISK NUMBER — prints that partition of the block device.
partition() {
	case $1 in
	*[0-9]) echo "$1p$2" ;;
	*) echo "$1$2" ;;
	esac
}

# argument NAME — prints the value of that argument of the kernel's command line.
argument() {
	tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"
}

# run_fio NAME ARGUMENTS… — runs one fio job (or group) with libaio and direct I/O, reports its figures, fails when fio does.
run_fio() {
	fio_name=$1
	shift
	fio_status=0
	fio --name="$fio_name" --ioengine=libaio --direct=1 --group_reporting --eta=never --minimal --terse-version=3 \
		--output="/tmp/$fio_name.terse" "$@" || fio_status=$?
	# Terse version 3: field 5 is the error; 8, 49 and 90 are the IOPS read, written, trimmed; 6 and 47 the KiB moved.
	figures=$(awk -F';' '$1 == 3 {
		printf "error=%s read_iops=%s write_iops=%s read_kib=%s written_kib=%s", $5, $8, $49, $6, $47
	}' "/tmp/$fio_name.terse")
	result "fio.$fio_name" "$figures"
	case $figures in
	error=0\ *) ;;
	*) fio_status=1 ;;
	esac
	[ "$fio_status" = 0 ] || fail "fio $fio_name failed, exit status $fio_status: $(grep -v '^3;' "/tmp/$fio_name.terse" | tail -3)"
}
