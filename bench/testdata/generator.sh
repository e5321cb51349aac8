#!/bin/sh
# Plays a load generator that takes turns: `-source N -port N -pid N …`, as bench starts it. Nothing is sent to anyone; who does
# what goes by the source.
source=$2 server=$6 turn=0

say() { # got
	echo "{\"mode\":\"fan\",\"clients\":2,\"seconds\":1,\"server_cpu_s\":$turn,\"want\":20,\"got\":$1,\"least\":10,\"most\":10,\"wrong\":0,\"closed\":0}"
}

if [ "$source" = 30 ]; then
	echo "nobody there" >&2
	exit 3
fi
echo '{"mode":"fan","clients":2,"seconds":9,"connect_seconds":9,"connect_cpu_s":8,"wrong":0,"closed":0}'
while read -r _; do
	case "$source/$turn" in
	9/0 | 16/2) say 19 ;; # has lost one, the first of them while it warms up
	23/2)
		echo "it broke" >&2
		exit 1
		;;
	37/3) # the server ends; it is gone when we say so
		kill "$server"
		while kill -0 "$server" 2>/dev/null; do sleep 0.01; done
		say 7
		;;
	*) say 20 ;;
	esac
	turn=$((turn + 1))
done
[ "$source" != 44 ] || exit 5
