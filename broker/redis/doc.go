// Package redis is the broker over Redis Pub/Sub. Nodes and emitters that use the same Redis reach
// each other, and those of the reference implementation.
//
//	b, err := redis.New(redis.Config{URL: "redis://:password@redis.internal:6379"})
//	srv, err := hearth.New(hearth.Config[C, M]{Broker: b, …})
//
// It needs Redis 6 or later, or a server that speaks like it. A user that is limited by ACLs needs
// the channels ws:* and hearth:*. With Config.Patterns it also needs ws:room:*, ws:client:* and
// ws:user:*, because Redis compares patterns literally. With Config.History it needs the keys
// hearth:* (docs/operations.md lists the commands). Config.Prefix is put before each of these.
//
// # Addresses
//
//	redis://user:password@host:6379/0               one server; rediss:// for TLS
//	unix://user:password@/run/redis.sock?db=0       a Unix socket
//	redis://:password@s1:26379?addr=s2:26379&addr=s3:26379&master_set=main
//	                                                the master of these Sentinels; with sentinel_username
//	                                                and sentinel_password if they require a login
//	redis://host1:6379?addr=host2:6379&cluster=true a Cluster; some of its nodes are enough
//
// Further parameters are client_name, dial_timeout, write_timeout and skip_verify (of
// certificates). The fields of Config have the same meaning, and override the URL.
//
// # Delivery
//
// A node has two connections, one to publish and one to subscribe. An emitter has the first only.
// All messages are published on one connection, so those of one goroutine arrive in its order,
// across channels. In a Cluster the two lead to different nodes, which share all Pub/Sub messages.
//
// The node is subscribed to exactly the channels that it holds. Hold subscribes in batches that all
// callers share, and returns when Redis has confirmed: messages published after that arrive. It
// waits at most Config.HoldTimeout, because a Redis that hangs must not keep clients out. Channels
// that were not confirmed by then are reported as a loss when they are. A channel without holders
// is unsubscribed after Config.ReleaseGrace, or earlier if there are more than
// Config.GraceChannels. Holds take turns, so a client that connects does not wait for others that
// join a thousand rooms. With Config.Patterns the node is subscribed to everything.
//
// # Losses
//
// Messages are delivered at most once, and never sent twice:
//
//   - While Redis, or the connection to it, is down, messages of other nodes are lost for this
//     node. Afterwards it subscribes to all held channels again, and Receiver.Lost reports since
//     when messages may be missing.
//   - Messages that this node publishes meanwhile wait, up to Config.PublishQueue and for
//     Config.PublishMaxAge: a short outage should cost nothing, and messages that are minutes old
//     do harm. Beyond that they are dropped and counted in Health.Dropped, like those that were
//     being sent when the connection broke.
//   - A master that Sentinels have demoted goes on accepting messages for some seconds. Nodes that
//     have left it stay subscribed there until it becomes a replica. Publishers ask a Sentinel in
//     every Config.ProbeInterval. Messages that they published to the old master in between are
//     counted in Health.Uncertain and reported to the nodes (Receiver.Lost).
//   - A receiver that is slower than the messages arrive loses those that exceed
//     Config.ReceiveQueue, which is reported, too.
//
// In every Config.ProbeInterval the node sends itself a message through Redis, and asks the server
// for its role. So it notices a connection that died silently, a server that hangs, and one that
// has become a replica. It then connects to the right server and reports a loss. If a Cluster falls
// apart, a node notices that only if its own two connections are on different sides.
//
// # History
//
// With Config.History, Redis keeps a log for each room that a rule selects, in keys that begin with
// hearth: and have the name of the room as their hash tag. A Lua script numbers a message, adds it
// to the log and publishes it. It runs in the same pipeline as other messages, so the order stays
// the same. A message costs Redis about 12 µs instead of less than one. Reads use a third
// connection.
//
// Redis copies its data to replicas, and to its disk, with a delay. After a restart or a failover
// the newest messages may be missing. So each log belongs to one run of one master. After a
// restart, a failover, or the move of a slot of a Cluster to another node, the history of a room
// starts anew, with another epoch. So it does when the master gets its first replica, and an hour
// after it has lost the last one. The nodes notice that, and report it to the clients.
//
// The messages of a room stay in the log for the age of its rule, and its position for a day more
// after its last use; that of a room which never had a message is kept for 5 minutes.
//
// In a Cluster, messages to rooms with history go to the owners of their slots, on a connection for
// each owner. Their order is kept for each room, and not with messages to other targets. While a
// slot is being moved, a message with a Key may arrive after later ones without.
//
// # Reasons
//
// Health.Reason says why a broker is not ok, in one of these words. They do not change, so alerts
// can use them. Health.Err has the details.
//
//	refused       no process listens at the address: Redis is not running, or has another address
//	unreachable   no route to the host, or the name is not known
//	timeout       no answer in time: Redis hangs, or the network drops packets
//	closed        the connection ended: Redis was shut down, or closed it (slow subscriber, CLIENT KILL)
//	no-echo       messages of this node to itself do not arrive, though Redis answers
//	subscribing   connected again, and subscribing to the held channels
//	replica       the server is a replica, or the Sentinels name another master: a failover in progress
//	no-master     no Sentinel knows a master of that name
//	cluster-down  Redis answers CLUSTERDOWN
//	loading       Redis answers LOADING: it loads its data after a start
//	busy          Redis answers BUSY: a script is running
//	misconf       Redis answers MISCONF: it cannot write its data to disk
//	oom           Redis answers OOM: its memory is full
//	max-clients   Redis accepts no more connections (maxclients)
//	auth          the password or the user is wrong or missing
//	permission    the user may not use a command or a channel (NOPERM), or this process may not open the socket
//	tls           the server does not speak TLS, or one side does not trust the other's certificate
//	database      the database does not exist
//	wrong-server  not Redis 6, not a node of a Cluster, a Sentinel, or not a Redis
//	other         any other error
package redis
