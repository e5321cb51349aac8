// Package redis is the broker over Redis Pub/Sub: nodes and emitters that name the same Redis reach each other, and those
// of the reference implementation.
//
//	b, err := redis.New(redis.Config{URL: "redis://:password@redis.internal:6379"})
//	srv, err := hearth.New(hearth.Config[C, M]{Broker: b, …})
//
// Redis 6 or later, or what speaks like it. A user that is limited by ACLs needs the channels ws:* and hearth:*, and
// with Config.Patterns also ws:room:*, ws:client:* and ws:user:*, since Redis compares patterns word for word. Config.Prefix
// stands before each of these.
//
// # Where Redis is
//
//	redis://user:password@host:6379/0               one server; rediss:// for TLS
//	unix://user:password@/run/redis.sock?db=0       a socket
//	redis://:password@s1:26379?addr=s2:26379&addr=s3:26379&master_set=main
//	                                                the master that these Sentinels know; sentinel_username and
//	                                                sentinel_password where they want any themselves
//	redis://host1:6379?addr=host2:6379&cluster=true a Cluster; some of its nodes are enough
//
// Further parameters: client_name, dial_timeout, write_timeout, skip_verify (of certificates). The fields of Config say the
// same, and go first.
//
// # What arrives
//
// A node has two connections, one to publish and one to subscribe, and an emitter the first of them. Everything is
// published on one connection, so what one goroutine publishes arrives in its order, across channels. On a Cluster the two
// are to different nodes: its Pub/Sub is one.
//
// The node is subscribed to exactly the channels that it holds. Hold asks for them in batches that all callers share, and
// returns when Redis has confirmed: what is published after that arrives. It waits for Config.HoldTimeout at most, since a
// Redis that hangs must not keep clients out; what was not confirmed is told as a loss when it has been. What nobody holds
// any more is given up after Config.ReleaseGrace, or earlier when that is more than Config.GraceChannels. Short lists of
// channels are asked for before long ones, so a client that connects does not wait for others that join a thousand rooms. With Config.Patterns it is subscribed to everything.
//
// # What is lost
//
// Delivery is at most once, and nothing is ever sent twice:
//
//   - While Redis is away, or its connection to this node, what others publish is lost for it. When it is back, everything
//     that is held is subscribed again, and Receiver.Lost is told since when messages may be missing.
//   - What this node publishes meanwhile waits: up to Config.PublishQueue, and for Config.PublishMaxAge, since a short
//     absence should cost nothing, and news of some minutes ago do harm. Beyond that it is dropped, and counted in
//     Health.Dropped, as is what was on its way when the connection broke.
//   - A master that Sentinels have demoted goes on taking messages for some seconds. Nodes that have left it listen to it
//     until it becomes a replica. Publishers ask a Sentinel every Config.ProbeInterval. What they have published to the old
//     master before they knew is counted in Health.Uncertain, and the nodes are told (Receiver.Lost).
//   - A receiver that is slower than what comes loses what exceeds Config.ReceiveQueue, and is told.
//
// Every Config.ProbeInterval a message of the node to itself goes the whole way, and the server is asked who it is. So a
// connection that has died silently, a server that hangs, and one that has become a replica are noticed, left for the
// right one, and told as a loss. Of a Cluster that falls apart a node notices only when its own two connections are on
// different sides.
//
// # What is wrong
//
// Health.Reason says why a broker is not ok, by one of these words. They stay, for alerts; Health.Err has the details.
//
//	refused       nobody listens at the address: Redis does not run, or elsewhere
//	unreachable   no way leads there: the network, or a name that nobody knows
//	timeout       no answer in time: Redis hangs, or something on the way swallows what is sent
//	closed        the connection ended: Redis was shut down, or closed it (a subscriber that is too slow, CLIENT KILL)
//	no-echo       what this node publishes does not come back to it, though Redis answers
//	subscribing   it is connected again, and asks for what is held
//	replica       it is a replica, or the Sentinels name another master: a failover that has not ended
//	no-master     no Sentinel knows a master of that name
//	cluster-down  Redis answers CLUSTERDOWN,
//	loading       … LOADING: it reads its data, after a start,
//	busy          … BUSY: a script runs,
//	misconf       … MISCONF: it can't write its data to disk,
//	oom           … OOM: its memory is full
//	max-clients   Redis takes no more connections: maxclients
//	auth          the password or the user is wrong, or missing
//	permission    the user may not do that, or not on that channel (NOPERM); or this process may not open the socket
//	tls           no TLS is spoken there, or one of the two does not trust the other's certificate
//	database      there is no such DB
//	wrong-server  no Redis 6, no node of a Cluster, a Sentinel, or no Redis at all
//	other         anything else
package redis
