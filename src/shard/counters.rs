//! What a core counts, and how others read it.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one core has done so far, and holds now.
        ///
        /// A core publishes its counters at the end of each turn in which something happened, and before it sleeps,
        /// so a snapshot is at most one turn old.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub struct CoreSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The published counters of a core: written by that core only, read by anybody.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Published {
            $($name: AtomicU64,)*
        }

        impl Published {
            /// Makes these values visible.
            pub fn publish(&self, counters: &CoreSnapshot) {
                $(self.$name.store(counters.$name, Ordering::Relaxed);)*
            }

            /// The values that were published last.
            pub fn read(&self) -> CoreSnapshot {
                CoreSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl std::ops::AddAssign for CoreSnapshot {
            fn add_assign(&mut self, other: CoreSnapshot) {
                let deepest = self.lane_depth_max.max(other.lane_depth_max);
                $(self.$name += other.$name;)*
                self.lane_depth_max = deepest;
            }
        }
    };
}

counters! {
    /// Asks that this core sent to an endpoint of its own.
    asks_local,
    /// Asks that this core sent over a lane.
    asks_lane,
    /// Asks that this core sent to a peer.
    asks_peer,
    /// One-way messages that this core sent to an endpoint of its own.
    sends_local,
    /// One-way messages that this core sent over a lane.
    sends_lane,
    /// One-way messages that this core sent to a peer.
    sends_peer,
    /// Requests that arrived from peers.
    requests_in,
    /// Requests of peers passed on to another core.
    requests_passed,
    /// Answers sent to peers.
    replies_out,
    /// Answers that arrived from peers.
    replies_in,
    /// Answers that nobody waited for any longer.
    replies_late,
    /// Messages whose handler ran.
    handled,
    /// Messages that their endpoint has no handler for, or only for the other kind: as an ask, or as a one-way message.
    unknown_messages,
    /// Messages that could not be decoded.
    undecodable_messages,
    /// Handlers of one-way messages dropped since they had waited for too long (`Config::one_way_timeout`).
    one_way_timeouts,
    /// Messages refused since an inbox was full (`Config::inbox_messages`, `inbox_bytes`).
    overloaded_inbox,
    /// Messages refused since the outbox to a peer was full (`Config::outbox_bytes`).
    overloaded_outbox,
    /// Messages refused since a lane was full (`Config::lane_messages` + `lane_overflow`, `inbox_bytes`).
    overloaded_lane,
    /// Asks refused since the table of pending asks was full (`Config::pending_asks`).
    overloaded_pending,
    /// Asks refused since too many were deferred (`Config::deferred`).
    overloaded_deferred,
    /// Jobs of threads that are no core refused by the injector (`Config::injected`, `injected_bytes`).
    overloaded_injector,
    /// Asks and sends refused since too many waited for room already (`Config::waiting`).
    overloaded_waiting,
    /// Tasks, endpoints, and handlers that would be in flight side by side, refused (`Config::tasks`).
    tasks_refused,
    /// Messages and replies not sent, since their frame is larger than its receiver accepts (`Config::max_frame` there).
    /// One that arrives is a protocol error: its sender was told.
    frames_too_large,
    /// Messages and replies that were not decoded, since they would cost too much (`Config::decode_depth`,
    /// `decode_bytes`, `decode_elements`).
    decode_refused,
    /// Cancellations dropped since a lane was full: their work is done in vain.
    cancels_lost,
    /// Messages dropped since their deadline had passed.
    expired,
    /// Messages dropped, or handlers stopped, since the asker gave up.
    cancelled,
    /// Messages for endpoints that do not exist or are stopping.
    unknown_endpoint,
    /// Asks that ended by their timeout.
    timeouts,
    /// One-way messages lost on this side: with a connection, with the attempt to make one, or refused by a full queue
    /// after a thread that is no core had handed them in.
    sends_lost,
    /// Bytes received.
    bytes_in,
    /// Bytes given to the kernel to send.
    bytes_out,
    /// Connections accepted.
    accepted,
    /// Connections that were handed to another core, as `Config::placement` says.
    connections_steered,
    /// Connections that were opened to peers.
    dialled,
    /// Outboxes whose host name was not resolved since too many others waited (`Config::resolver_queue`).
    overloaded_resolver,
    /// Refs that peers told and `Builder::ref_policy` does not allow, and host names of such that stand for forbidden
    /// addresses.
    refs_forbidden,
    /// Attempts to connect that failed.
    dial_failures,
    /// Connections closed since the peer broke the protocol, or did not connect or say its hello in time.
    protocol_errors,
    /// Connections closed at once, or not opened, since there were too many (`Config::connections`).
    connections_refused,
    /// Connections closed since their peer had connected anew in their stead.
    connections_displaced,
    /// Requests of such connections that were dropped, since the new one may have brought others already.
    requests_fenced,
    /// Nodes that left and whose identity was forgotten at once (`Config::absent_nodes`).
    nodes_forgotten,
    /// Times that reading stopped since the peer did not read its answers.
    reads_paused,
    /// Receive buffers that were handled in a later turn, since their turn had handled 128 KiB already.
    reads_deferred,
    /// Connections closed since far too much waited for a peer that did not read.
    slow_peers_closed,
    /// Peers asked for a sign of life, having been silent (`Config::keepalive`).
    pings_sent,
    /// Connections closed since their peer gave none (`Config::keepalive_misses`).
    keepalive_closed,
    /// Events of connections that an endpoint was not told, since too many waited (`Config::inbox_messages`).
    events_lost,
    /// System calls into the ring.
    enters,
    /// Operations given to the ring.
    sqes,
    /// Sends that were made with a system call of their own instead of an enter, since nothing else was to be done.
    direct_sends,
    /// System calls by which the core, as it spun, looked for itself whether a busy connection had brought something.
    probes,
    /// Times that the completion queue overflowed; nothing is lost, but receiving is interrupted.
    cq_overflows,
    /// Times that the receive buffers ran out.
    buffer_starvations,
    /// Multishot operations that were armed again after the kernel had ended them.
    rearms,
    /// Completions that belonged to an operation that no longer exists.
    stale_completions,
    /// Sends that the kernel took only a part of; the rest was sent next.
    short_sends,
    /// Wake-ups sent to other cores.
    wakes_sent,
    /// Wake-ups that were not needed, since the other core was awake.
    wakes_suppressed,
    /// Wake-ups by a ring's message that failed, and were made by other means.
    wakes_failed,
    /// Times that this core went to sleep.
    parks,
    /// Turns of this core's loop in which something happened.
    turns,
    /// Messages put into lanes.
    lane_sent,
    /// Messages taken out of lanes.
    lane_received,
    /// Most messages ever seen waiting in one lane to this core.
    lane_depth_max,
    /// Jobs from threads that are no core.
    injected,
    /// Now: connections.
    connections,
    /// Now: asks that wait for their answer.
    pending_asks,
    /// Now: asks whose answer was left to a replier.
    deferred,
    /// Now: asks and sends that wait for room.
    waiting,
    /// Now: endpoints, the built-in one included.
    endpoints,
    /// Now: tasks and endpoints.
    tasks,
    /// Now: messages that wait in inboxes.
    inbox_messages,
    /// Now: sockets that the ring holds, listeners included.
    sockets,
    /// Now: receive buffers that the kernel can fill.
    free_buffers,
    /// Now: timers that are armed.
    timers,
}

impl CoreSnapshot {
    /// Messages refused by any queue: the sum of the `overloaded_` counters.
    pub fn overloaded(&self) -> u64 {
        self.overloaded_inbox
            + self.overloaded_outbox
            + self.overloaded_lane
            + self.overloaded_pending
            + self.overloaded_deferred
            + self.overloaded_injector
            + self.overloaded_waiting
    }
}

/// The counters of all cores of an env.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// One entry per core, by its number.
    pub cores: Vec<CoreSnapshot>,
    /// One entry per isolated core whose thread runs; those of one whose endpoint blocks are as old as the block.
    pub isolated: Vec<CoreSnapshot>,
}

impl Snapshot {
    /// The sum over all cores, isolated ones included; of `lane_depth_max` the largest.
    pub fn total(&self) -> CoreSnapshot {
        self.cores.iter().chain(&self.isolated).fold(CoreSnapshot::default(), |mut sum, core| {
            sum += *core;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_and_summed() {
        let published = Published::default();
        published.publish(&CoreSnapshot { enters: 3, timers: 1, ..CoreSnapshot::default() });
        let snapshot = Snapshot { cores: vec![published.read()], isolated: vec![published.read()] };
        assert_eq!((snapshot.total().enters, snapshot.total().timers, snapshot.total().parks), (6, 2, 0));
    }
}
