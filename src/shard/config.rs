//! Every limit of an env, in one place.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ask::nanoseconds;
use super::placement::Placement;
use crate::executor::idle::Idle;
use crate::net::outbox::Backoff;
use crate::wire::limits::DecodeLimits;

/// Every limit and every duration of an env, with its default. Nothing in an env grows without one of these bounds.
///
/// ```
/// use ringpost::Config;
/// let config = Config { max_frame: 1 << 20, ..Config::default() };
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a configuration is written with `..Config::default()`")]
pub struct Config {
    /// Largest frame that this node accepts, header included, in bytes: 16 MiB. From 4 KiB to 1 GiB.
    pub max_frame: u32,
    /// Levels to which options, enums, sequences and maps may nest in a message or a reply of a peer: 128. Beyond this
    /// and the two limits below it is undecodable: its ask fails. Deeper nesting than the stack of the core's thread
    /// allows is refused whatever this says.
    pub decode_depth: u32,
    /// Bytes of memory that a message or a reply of a peer may take up beyond its encoding: 128 MiB, so that a frame of
    /// 16 MiB may be full of 8-byte numbers, each of which takes at least a byte there. Counted are the elements of
    /// sequences and maps, at least four for each that is not empty, and what lies behind pointers. While a message is
    /// decoded, the allocator is asked for at most four times as much, 8 MiB, and three times the encoding.
    pub decode_bytes: usize,
    /// Elements of sequences and maps that a message or a reply of a peer may have beyond one for each of its bytes:
    /// 65,536. Only elements of types without any field take no byte.
    pub decode_elements: usize,
    /// Messages that wait in an endpoint's inbox: 4,096. Further ones are refused. A core keeps the memory of as many, 144
    /// bytes each, for messages to come.
    pub inbox_messages: usize,
    /// Bytes of messages that wait in an endpoint's inbox, or in a lane from one core to another: 64 MiB. A message of a
    /// peer counts as its encoding, one of this env as the size of its type: what it owns on the heap is not seen. One
    /// that is larger still fits where no other waits.
    pub inbox_bytes: usize,
    /// Bytes that wait to be sent over one connection, or for one: 4 MiB. While as many wait, asks and sends are refused,
    /// and a peer that does not read its answers gets no further request handled. It bounds their number too, since each
    /// has at least 28 bytes. The one that crosses the bound is still taken.
    pub outbox_bytes: usize,
    /// Asks per core that wait for their answer, or whose answer waits for its future: 65,536. An answer of a peer is never
    /// larger than `max_frame`.
    pub pending_asks: usize,
    /// Asks per core whose handler left the answer to a [`Replier`](crate::Replier): 65,536.
    pub deferred: usize,
    /// Connections per core, both directions: 10,240. Further ones are closed at once, or not opened.
    pub connections: usize,
    /// Nodes that have no connection left and whose identity is kept for when they come back: 65,536, a sixteenth
    /// of them (or 64, if that is more) from one address. Of a further one the identity is forgotten: whoever claims it
    /// next has it.
    pub absent_nodes: usize,
    /// How long the identity of such a node is kept: 1 h.
    pub absent_for: Duration,
    /// Tasks and endpoints per core: 1,048,576.
    pub tasks: usize,
    /// Messages that a lane from one core to another holds: 1,024, at most 2^20. Their bytes are bounded by `inbox_bytes`.
    pub lane_messages: usize,
    /// Messages that wait for a full lane, before asks and sends are refused: 65,536. None wait for a lane to an
    /// isolated endpoint, which may stand still: there only word of connections may, as many as this and `connections`
    /// together.
    pub lane_overflow: usize,
    /// Jobs from threads that are no core, asks and sends among them, that wait for a core: 65,536.
    pub injected: usize,
    /// Bytes of such jobs, each as large as the types of what it brings along: 64 MiB.
    pub injected_bytes: usize,
    /// Asks and sends that wait for room in a queue, by the caller's choice, per core: 65,536.
    pub waiting: usize,
    /// Endpoints that have a thread of their own, because they may block, at one time: 16. Each costs a thread, a ring of
    /// some 10 KiB, and a lane of `lane_messages` to and from each core that talks to it; what was made once is kept for
    /// the next such endpoint, until the env ends. At most 65,535 together with the cores.
    pub isolated: u16,
    /// How long an ask waits for its answer unless it brings its own limit: 30 s.
    pub ask_timeout: Duration,
    /// How long the handler of a one-way message may take before it is dropped, counted and logged: 60 s. Zero: without
    /// limit. It may outlive the connection that brought its message, which its sender is free to close. While it
    /// waits, its endpoint handles nothing else, and nobody can give it up.
    pub one_way_timeout: Duration,
    /// How long a look-up waits: 5 s.
    pub lookup_timeout: Duration,
    /// How long the resolution of a host name may take, and each attempt to connect to one of its addresses: 3 s.
    pub connect_timeout: Duration,
    /// Threads that resolve host names, which the env's own user gave, at one time: 4, at most 256. As many more
    /// resolve those in refs that peers told. The system's resolver may hold one up for tens of seconds.
    pub resolver_threads: u16,
    /// Outboxes of cores that wait for a host name to be resolved, of each of the two kinds: 1,024. Asks and sends to
    /// further names are refused.
    pub resolver_queue: usize,
    /// Host names whose addresses are kept for a while, of each of the two kinds: 1,024. Zero: none.
    pub resolver_cache: usize,
    /// How long the addresses of a host name are kept: 5 s. Zero: not at all.
    pub resolver_ttl: Duration,
    /// How long it is kept that a host name cannot be resolved: 1 s. Zero: not at all.
    pub resolver_failed_ttl: Duration,
    /// How long a new connection may take to say its hello: 5 s.
    pub handshake_timeout: Duration,
    /// How long a connection may bring nothing before the peer is asked for a sign of life: 10 s. Zero: never; then a
    /// host that has gone silent is noticed by timeouts of asks alone. What the peer takes of a long send counts too, in
    /// parts of a MiB; while we do not read it, since it takes no answers, only that counts.
    pub keepalive: Duration,
    /// Unanswered pings in a row, one every `keepalive`, before the connection is closed: 3.
    pub keepalive_misses: u32,
    /// Pause after the first failed attempt to connect, doubled after each further one: 50 ms.
    pub backoff_first: Duration,
    /// Longest such pause: 5 s.
    pub backoff_last: Duration,
    /// How long `shutdown` waits for what is queued, if it is not told: 10 s.
    pub drain: Duration,
    /// How long a start waits for a port or a Unix socket that is taken: 250 ms in all. The kernel frees those of a
    /// killed process only some milliseconds after the process has gone. Zero: it does not wait.
    pub port_wait: Duration,
    /// Ports tried after the wished one if it is still taken after that: 0. A move to another one is warned of.
    pub port_retries: u16,
    /// Receive buffers per core, a power of two: 256. What has arrived for a connection whose reading has just stopped is
    /// kept: about as much as these buffers hold.
    pub receive_buffers: u16,
    /// Bytes of a receive buffer: 16 KiB. From 256 bytes to 16 MiB.
    pub receive_buffer_bytes: u32,
    /// Which core gets a connection that was accepted: the one that the peer wants.
    pub placement: Placement,
    /// Entries of a core's completion queue: 32,768, at most 65,536. At least four times the connections that are busy
    /// at once.
    pub completions: u32,
    /// What a core does when it has nothing to do.
    pub idle: Idle,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_frame: 16 << 20,
            decode_depth: DecodeLimits::DEFAULT.depth,
            decode_bytes: DecodeLimits::DEFAULT.bytes,
            decode_elements: DecodeLimits::DEFAULT.elements,
            inbox_messages: 4096,
            inbox_bytes: 64 << 20,
            outbox_bytes: 4 << 20,
            pending_asks: 65_536,
            deferred: 65_536,
            connections: 10_240,
            absent_nodes: 65_536,
            absent_for: Duration::from_secs(3600),
            tasks: 1 << 20,
            lane_messages: 1024,
            lane_overflow: 65_536,
            injected: 65_536,
            injected_bytes: 64 << 20,
            waiting: 65_536,
            isolated: 16,
            ask_timeout: Duration::from_secs(30),
            one_way_timeout: Duration::from_secs(60),
            lookup_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            resolver_threads: 4,
            resolver_queue: 1024,
            resolver_cache: 1024,
            resolver_ttl: Duration::from_secs(5),
            resolver_failed_ttl: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
            keepalive_misses: 3,
            backoff_first: Duration::from_millis(50),
            backoff_last: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            port_wait: Duration::from_millis(250),
            port_retries: 0,
            receive_buffers: 256,
            receive_buffer_bytes: 16 << 10,
            placement: Placement::default(),
            completions: 32_768,
            idle: Idle::default(),
        }
    }
}

impl Config {
    /// Says what is out of bounds.
    pub(crate) fn check(&self) -> Result<(), String> {
        let positive = [
            ("decode_depth", self.decode_depth as usize),
            ("inbox_messages", self.inbox_messages),
            ("inbox_bytes", self.inbox_bytes),
            ("outbox_bytes", self.outbox_bytes),
            ("pending_asks", self.pending_asks),
            ("deferred", self.deferred),
            ("connections", self.connections),
            ("tasks", self.tasks),
            ("lane_messages", self.lane_messages),
            ("injected", self.injected),
            ("injected_bytes", self.injected_bytes),
            ("waiting", self.waiting),
            ("resolver_threads", self.resolver_threads.into()),
            ("resolver_queue", self.resolver_queue),
            ("completions", self.completions as usize),
            ("keepalive_misses", self.keepalive_misses as usize),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} is 0; it must be at least 1"));
        }
        if !(4096..=1 << 30).contains(&self.max_frame) {
            return Err(format!("max_frame is {}; it must be from 4096 to 2^30 bytes", self.max_frame));
        }
        if !(256..=1 << 24).contains(&self.receive_buffer_bytes) {
            let bytes = self.receive_buffer_bytes;
            return Err(format!("receive_buffer_bytes is {bytes}; it must be from 256 to 2^24"));
        }
        if self.completions > 65_536 {
            return Err(format!("completions is {}; a ring has at most 65536", self.completions));
        }
        if self.resolver_threads > 256 {
            return Err(format!("resolver_threads is {}; it must be at most 256", self.resolver_threads));
        }
        let durations = [
            ("ask_timeout", self.ask_timeout),
            ("lookup_timeout", self.lookup_timeout),
            ("connect_timeout", self.connect_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("backoff_first", self.backoff_first),
        ];
        if let Some((name, _)) = durations.iter().find(|(_, duration)| duration.is_zero()) {
            return Err(format!("{name} is 0; nothing would ever succeed"));
        }
        if self.backoff_last < self.backoff_first {
            let (first, last) = (self.backoff_first, self.backoff_last);
            return Err(format!("backoff_last is {last:?}; it must not be below backoff_first, which is {first:?}"));
        }
        if !self.receive_buffers.is_power_of_two() || self.receive_buffers > 32_768 {
            return Err(format!("receive_buffers is {}; it must be a power of two up to 32768", self.receive_buffers));
        }
        let limited = [
            ("pending_asks", self.pending_asks, 28),
            ("connections", self.connections, 24),
            ("tasks", self.tasks, 24),
            // The memory of a lane is taken when it is first used, all at once.
            ("lane_messages", self.lane_messages, 20),
        ];
        if let Some((name, value, bits)) = limited.iter().find(|(_, value, bits)| *value > 1 << bits) {
            return Err(format!("{name} is {value}; it must be at most 2^{bits}"));
        }
        Ok(())
    }

    /// What decoding may cost on a thread whose stack may reach down to this address.
    pub(crate) fn decode_limits(&self, stack_floor: usize) -> DecodeLimits {
        let Config { decode_depth: depth, decode_bytes: bytes, decode_elements: elements, .. } = *self;
        DecodeLimits { depth, bytes, elements, stack_floor }
    }

    /// `one_way_timeout` in nanoseconds; `u64::MAX` without limit.
    pub(crate) fn one_way_limit(&self) -> u64 {
        if self.one_way_timeout.is_zero() { u64::MAX } else { nanoseconds(self.one_way_timeout) }
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { first: self.backoff_first, last: self.backoff_last }
    }
}
