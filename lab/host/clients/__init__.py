"""Clients of the lab's own workloads. Each module is a program (`python -m lab.host.clients.NAME`), which
prints a line a sample (lab.core.workload.sample) until it is ended.

    base        arguments, the schedule, lines
    looks       looks at the guests' states, a thread each
    state_poll  asks the state servers of guests
    udp_echo    a UDP packet, and its echo with the guest's time
    etcd        writes, reads back, a lease, who leads
    corosync    members, quorum, who runs the resource
    keepalived  the address, who holds it, gratuitous ARPs
    wire        a loop with timers, and TCP connections that never block
    nats        events through NATS JetStream: publisher and consumer
    resp        the protocol of Redis
    redis_sentinel  writes to the primary that Sentinels name
    mqtt        MQTT 3.1.1
    mosquitto   QoS 1 messages, clients with a keep-alive and a will
    guest_journals  what only a guest knows: restarts, runs of timers, its boot
    udp_stream  numbered UDP packets, to the guest or from it
    tcp_stream  a TCP connection with iperf3 (iperf3_protocol, tcp_info)
    tls         has the guest connect to a server whose certificate is new (certificates)
    timestamps  what the guest dates: tokens, files, lines of its journal
    haproxy     HTTP through HAProxy (http_get)
    hls         plays a live stream of segments (hls_player)
    rtp         plays a live stream of packets (playout)
    transcoding sends pictures and receives video
"""
