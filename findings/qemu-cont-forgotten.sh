#!/bin/bash
# QMP's cont on a QEMU that waits for a guest answers success, and is forgotten if the guest arrives stopped.
#
# Package: Debian 13's qemu-system-x86 1:10.0.13+ds-0+deb13u1 (7.2.22 does the same).
# Behaviour: `cont` while the state is "inmigrate" returns {}. When the source was running, the guest runs as
#   soon as it is there; when the source was stopped first, it is there and paused, for good.
# Surprise: QEMU's own reference (qapi/misc.json, cont) promises that the guest then starts when the migration
#   is over, in place of -S. Nothing says otherwise: the answer is the same in both cases, and whoever stops the
#   guest before the migration, to have an edge to measure from, gets no error and no running guest.
# Seen on 2026-11-28:
#     source running: cont answered {}; afterwards running
#     source paused: cont answered {}; afterwards paused
# In the product: the successor is told to run when its query-status has left inmigrate, and not before
#   (lab/hypervisor/freeze/in_place.py).
# Needs root. Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh && . ./qemu.sh

fetch new trixie qemu-system-x86=1:10.0.13+ds-0+deb13u1

status() { qmp "$1" query-status | sed 's/.*"status": "\([a-z-]*\)".*/\1/'; }

found=""
for source in running paused; do
    qemu new "$source" -M q35
    qmp "$source" cont >/dev/null
    [ $source = running ] || qmp "$source" stop >/dev/null
    [ "$(status $source)" = $source ] || cannot "the source is not $source"

    waiting=$source-to
    qemu new $waiting -M q35 -incoming defer
    [ "$(status $waiting)" = inmigrate ] || cannot "the successor does not wait"
    answer=$(qmp $waiting cont)
    qmp $waiting migrate-incoming "{\"uri\": \"unix:/work/$source-stream\"}" >/dev/null
    qmp "$source" migrate "{\"uri\": \"unix:/work/$source-stream\"}" >/dev/null
    for _ in {1..100}; do
        [ "$(status $waiting)" = inmigrate ] || break
        sleep 0.1
    done
    # Whatever it is going to do, it has had the time for it.
    sleep 2
    line="source $source: cont answered $answer; afterwards $(status $waiting)"
    echo "$line"
    found+="$line / "
done

[ "$found" = "source running: cont answered {}; afterwards running / \
source paused: cont answered {}; afterwards paused / " ] || changed "see above"
