#!/bin/sh
# Drains this machine before its maintenance, acknowledges the event, and returns it to service afterwards.
#
# The same as drain.py for machines without Python, in POSIX shell with curl and awk. It polls the metadata
# service for Scheduled Events once a second. When there is an event for this machine, it runs the command
# DRAIN and acknowledges the event, so that the maintenance need not wait for NotBefore. When there is no event
# any more, for whatever reason, it runs UNDRAIN.
#
# What it does depends only on the last valid answer and on whether the machine is drained. So it also handles
# events that are cancelled, are never seen as Started, or start without notice. It ignores the incarnation,
# which may restart at 1. Without an answer it changes nothing.
set -u
usage() {
    cat <<EOF
usage: drain.sh [options]; in the environment: DRAIN, UNDRAIN, STATE, URL
  --drain COMMAND    takes this machine out of service
  --undrain COMMAND  returns it to service
  --state FILE       exists while drained: outlives a reboot
  --for-all          acknowledge events that name other machines too
  --watch-only       print events, do nothing else
  --once             poll once, do nothing else; fails without an answer
  --url URL          address of the metadata service
  --every SECONDS    polling interval; 1
  --timeout SECONDS  time limit for an answer; 10
  --first SECONDS    time limit for the first answer, which enables the service; 150
EOF
}

DRAIN=${DRAIN:-true} UNDRAIN=${UNDRAIN:-true} STATE=${STATE:-} URL=${URL:-http://169.254.169.254}
for_all='' watch_only='' once='' every=1 timeout=10 first=150
while [ $# -gt 0 ]; do
    case $1 in
        --for-all) for_all=1 ;;
        --watch-only) watch_only=1 ;;
        --once) watch_only=1 once=1 ;;
        --drain | --undrain | --state | --url | --every | --timeout | --first)
            [ $# -gt 1 ] || { usage >&2; exit 2; }
            case $1 in
                --drain) DRAIN=$2 ;;
                --undrain) UNDRAIN=$2 ;;
                --state) STATE=$2 ;;
                --url) URL=$2 ;;
                --every) every=$2 ;;
                --timeout) timeout=$2 ;;
                --first) first=$2 ;;
            esac
            shift ;;
        --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
EVENTS="$URL/metadata/scheduledevents?api-version=2020-07-01"
NAME="$URL/metadata/instance/compute/name?api-version=2021-02-01&format=text"
NEWLINE='
'
TAB=$(printf '\t')

log() { echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $*"; }

# Log one line for each change of the trouble with $1, a word; $2 is "" when there is none.
complain() {
    eval "before=\${wrong_$1-} wrong_$1=\$2"
    [ "$before" = "$2" ] || log "$1: ${2:-works again}"
}

# Ask the metadata service, which is never behind a proxy, and leave its answer in $body. Without an answer
# within $1 seconds it fails, with the reason in $body.
ask() {
    body=$(curl -sS --noproxy '*' -H 'Metadata: true' -w '\n%{http_code}' -m "$@" 2>&1) || {
        body=${body#*curl: } body=${body%%"$NEWLINE"*}
        return 1
    }
    code=${body##*"$NEWLINE"} body=${body%"$NEWLINE"*}
    [ "$code" = 200 ] || { body="HTTP $code"; return 1; }
}

# The events in a document, one per line, tab-separated: id, type, status, for whom (alone: this machine,
# mine: others too, others), not before, resources. Fails when the document is not valid. It parses all of
# JSON but the escapes of characters other than " \ and /.
events() {
    printf '%s\n' "$1" | awk -v name="$name" '
        { text = text $0 "\n" }
        END {
            depth = 0
            while (text != "") {
                if (match(text, /^[ \t\r\n]+/)) {
                } else if (match(text, /^"([^"\\]|\\.)*"/)) {
                    value = substr(text, 2, RLENGTH - 2)
                    gsub(/\\\//, "/", value); gsub(/\\"/, "\"", value); gsub(/\\\\/, "\\", value)
                    gsub(/[\t\r\n]/, " ", value)
                    said(value)
                } else if (match(text, /^[-+.0-9a-zA-Z]+/)) {
                    said(substr(text, 1, RLENGTH))
                } else if (match(text, /^[][{},:]/)) {
                    sign(substr(text, 1, 1))
                } else
                    exit 1
                text = substr(text, RLENGTH + 1)
            }
            exit depth != 0 || !complete
        }
        function sign(c) {
            if (c == ":") key[depth] = last
            if (c == "{" || c == "[") {
                open[++depth] = c; key[depth] = ""; in_list[depth] = c == "["
                if (depth == 3 && key[1] == "Events" && c == "[") exit 1
                if (depth == 3) { id = type = status = when = who = ""; mine = others = 0 }
            }
            if (c == "}" || c == "]") {
                if (depth == 0 || open[depth] != (c == "}" ? "{" : "[")) exit 1
                if (depth == 3 && key[1] == "Events" && c == "}") {
                    if (id == "" || type == "" || status == "" || who == "") exit 1
                    whose = !mine ? "others" : others ? "mine" : "alone"
                    print id "\t" type "\t" status "\t" whose "\t" (when == "" ? "-" : when) "\t" who
                }
                if (depth == 2 && key[1] == "Events" && c == "]") complete = 1
                depth--
            }
            if (c == "," && !in_list[depth]) key[depth] = ""
        }
        function said(value) {
            last = value
            if (key[1] != "Events") return
            if (depth < 3 && !(depth == 1 && value == "Events")) exit 1
            if (depth == 4 && key[3] == "Resources") {
                who = who (who == "" ? "" : " ") value
                if (value == name) mine = 1; else others = 1
            }
            if (depth == 3 && key[3] == "EventId") id = value
            if (depth == 3 && key[3] == "EventType") type = value
            if (depth == 3 && key[3] == "EventStatus") status = value
            if (depth == 3 && key[3] == "NotBefore") when = value
        }'
}

# Log one line for each change of the events.
tell() {
    while IFS=$TAB read -r id type status whose when who; do
        [ -n "$id" ] || continue
        case "$NEWLINE$seen" in *"$NEWLINE$id$TAB$type$TAB$status$TAB"*) continue ;; esac
        [ "$when" = - ] && when='' || when=", not before $when,"
        [ "$whose" = others ] && who="$who (others)"
        log "$id $type $status$when for $who"
    done <<EOF
$1
EOF
    while IFS=$TAB read -r id _; do
        [ -n "$id" ] || continue
        case "$NEWLINE$1" in *"$NEWLINE$id$TAB"*) ;; *) log "$id gone" ;; esac
    done <<EOF
$seen
EOF
    seen=$1
}

# Run one of the user's commands, $2, with the event, if any, in its environment.
run() {
    EVENT_ID=${3-} EVENT_TYPE=${4-} /bin/sh -c "$2" </dev/null || {
        complain "$1" "exit status $?, will be retried"
        return 1
    }
    complain "$1" ''
}

act() {
    mine=$(printf '%s\n' "$1" | grep "$TAB\(mine\|alone\)$TAB")
    IFS=$TAB read -r id type _ <<EOF
$mine
EOF
    if [ -n "$mine" ] && [ -z "$drained" ]; then
        run DRAIN "$DRAIN" "$id" "$type" || return
        drained=1
        [ -z "$STATE" ] || : >"$STATE"
        log drained
    elif [ -z "$mine" ] && [ -n "$drained" ]; then
        run UNDRAIN "$UNDRAIN" || return
        drained=''
        [ -z "$STATE" ] || rm -f "$STATE"
        log 'back in service'
    fi
    while IFS=$TAB read -r id _ status whose _; do
        [ "$status" = Scheduled ] || continue
        [ "$whose" = alone ] || [ -n "$for_all" ] || continue
        # Let it start now, on behalf of all machines that it names. If that fails, the event is still
        # Scheduled, or gone: the next answer shows which.
        if ask "$timeout" -d "{\"StartRequests\": [{\"EventId\": \"$id\"}]}" "$EVENTS"; then
            log "$id acknowledged"
            complain acknowledging ''
        else
            complain acknowledging "$body"
        fi
    done <<EOF
$mine
EOF
}

# Poll once and act on the answer. Fails when there was no answer.
turn() {
    if [ -z "$name" ]; then
        ask "$timeout" "$NAME" || { complain service "$body"; return 1; }
        [ -n "$body" ] || { complain service 'no name in the answer'; return 1; }
        # In events this machine has this name, which need not be the host name.
        name=$body
        log "this is $name${drained:+, drained}"
    fi
    ask "$first" "$EVENTS" || { complain service "$body"; return 1; }
    found=$(events "$body") || { complain service 'no events in the answer'; return 1; }
    complain service ''
    first=$timeout
    tell "$found"
    [ -n "$watch_only" ] || act "$found"
    return 0
}

name='' seen='' drained='' before='' factor=1
[ -n "$STATE" ] && [ -e "$STATE" ] && drained=1
while :; do
    if turn; then factor=1 pause=$every answered=0; else
        factor=$((factor < 8 ? factor * 2 : 10)) answered=1
        pause=$(awk -v every="$every" -v factor="$factor" 'BEGIN { print every * factor }')
    fi
    [ -z "$once" ] || exit "$answered"
    sleep "$pause"
done
