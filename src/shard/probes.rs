//! Which connections a spinning core looks at by itself.

use crate::ring::{Completion, Ring, SocketId};

/// Connections that are probed at a time. A look at one takes as long as many looks at memory.
const MOST: usize = 4;
/// Pieces that a connection has brought, before it is probed.
const STREAK: u32 = 8;
/// Pieces of other connections, after which one that was silent meanwhile is not probed any more.
const PATIENCE: u64 = 64;
/// A piece longer than this, in bytes, is part of a stream, of which the kernel brings more at a time than a look does.
const SHORT: usize = 4096;
/// Looks in a row that found nothing, after which no connection is probed any more: a tenth of a millisecond or so.
const LOOKS: u32 = 256;

/// The connections that talk most, while the core spins.
///
/// As a rule the kernel tells when bytes have come: that costs nothing while none come, but the wake-up work and a
/// system call when they do. A core that spins has nothing better to do than to look itself: a look that finds bytes has
/// received them. So the few connections that keep a core busy with short messages are probed, and all others are left
/// to the kernel; likewise those few before the core sleeps, and when they fall silent.
///
/// A core with many connections but a single ask under way knows as well who is about to talk. It looks there while the
/// kernel receives, so that nothing has to be changed for a single answer.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// At most [`MOST`], the one that brought something last in front.
    recent: Vec<Talker>,
    /// Pieces that all connections have brought.
    pieces: u64,
    /// Looks since the last of them.
    looks: u32,
    /// The connection that was asked last and has brought nothing since.
    asked: Option<SocketId>,
    /// Looks at it.
    waited: u32,
    /// The last piece was part of a stream, as the next one may be.
    streaming: bool,
}

#[derive(Debug)]
struct Talker {
    id: SocketId,
    /// Pieces that it has brought without a long silence.
    streak: u32,
    /// Number of its last piece.
    last: u64,
}

impl Talker {
    fn is_probed(&self) -> bool {
        self.streak >= STREAK
    }
}

impl Probes {
    /// A connection of a core that spins has brought `len` bytes.
    #[inline]
    pub(super) fn received(&mut self, ring: &mut Ring, id: SocketId, len: usize) {
        self.pieces += 1;
        self.looks = 0;
        self.asked.take_if(|asked| *asked == id);
        self.streaming = len > SHORT;
        if self.streaming {
            return self.forget(ring, id);
        }
        match self.recent.iter().position(|talker| talker.id == id) {
            Some(0) => {}
            Some(at) => self.recent[..=at].rotate_right(1),
            None => {
                self.recent.insert(0, Talker { id, streak: 0, last: 0 });
            }
        }
        let talker = &mut self.recent[0];
        talker.last = self.pieces;
        talker.streak = talker.streak.saturating_add(1);
        if talker.streak == STREAK {
            ring.recv_by_probe(id);
        }
        self.drop_silent(ring);
    }

    /// Something that may be answered leaves over a connection.
    #[inline]
    pub(super) fn asked(&mut self, id: SocketId) {
        let is_probed = self.recent.iter().any(|talker| talker.id == id && talker.is_probed());
        self.asked = (!is_probed && !self.streaming).then_some(id);
        self.waited = 0;
    }

    /// Looks at the connection that was asked last, unless it has answered; what has come is put at the end of `out`.
    /// False if there is no such connection.
    #[inline]
    pub(super) fn look_for_answer(&mut self, ring: &mut Ring, out: &mut Vec<Completion>) -> bool {
        let Some(id) = self.asked else { return false };
        self.waited += 1;
        // One that is closed, or does not receive for now, is not looked at.
        if self.waited > LOOKS || !ring.recv_ahead(id, out) {
            self.asked = None;
        }
        self.asked.is_some()
    }

    fn forget(&mut self, ring: &mut Ring, id: SocketId) {
        self.recent.retain(|talker| talker.id != id);
        ring.recv_unprobed(id);
    }

    /// The kernel takes back the one that has been silent for longest, if that is too long or there are too many.
    #[inline]
    fn drop_silent(&mut self, ring: &mut Ring) {
        let silent = |talker: &mut Talker| self.pieces - talker.last > PATIENCE;
        let gone = if self.recent.len() > MOST { self.recent.pop() } else { self.recent.pop_if(silent) };
        if let Some(talker) = gone {
            ring.recv_unprobed(talker.id);
        }
    }

    /// Looks at each probed connection; what has come is put at the end of `out`. False if none is probed.
    #[inline]
    pub(super) fn look(&mut self, ring: &mut Ring, out: &mut Vec<Completion>) -> bool {
        if self.looks >= LOOKS {
            self.end(ring);
        }
        // One that is closed, or does not receive for now, has to earn it anew.
        self.recent.retain(|talker| !talker.is_probed() || ring.probe(talker.id, out));
        let any = self.recent.iter().any(Talker::is_probed);
        self.looks += u32::from(any);
        any
    }

    /// Leaves all connections to the kernel.
    pub(super) fn end(&mut self, ring: &mut Ring) {
        self.looks = 0;
        self.asked = None;
        self.recent.drain(..).for_each(|talker| ring.recv_unprobed(talker.id));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::ring::{Capabilities, RingConfig};

    struct Stage {
        ring: Ring,
        probes: Probes,
        /// The other ends.
        theirs: Vec<UnixStream>,
        ours: Vec<SocketId>,
    }

    impl Stage {
        fn with(connections: usize) -> Stage {
            let config = RingConfig { sq_entries: 64, cq_entries: 64, buffers: 1, buffer_size: 64 };
            let mut ring = Ring::new(&config, &Capabilities::probe().unwrap()).unwrap();
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..connections {
                let (near, far) = UnixStream::pair().unwrap();
                ours.push(ring.adopt(near.into()));
                theirs.push(far);
            }
            ours.iter().for_each(|id| ring.recv(*id));
            Stage { ring, probes: Probes::default(), theirs, ours }
        }

        fn received(&mut self, connection: usize) {
            self.probes.received(&mut self.ring, self.ours[connection], 88);
        }

        /// Whether the ring probes it.
        fn is_probed(&mut self, connection: usize) -> bool {
            self.ring.probe(self.ours[connection], &mut Vec::new())
        }

        fn looks_for_answer(&mut self) -> bool {
            self.probes.look_for_answer(&mut self.ring, &mut Vec::new())
        }

        fn probed(&mut self) -> Vec<usize> {
            (0..self.ours.len()).filter(|&connection| self.is_probed(connection)).collect()
        }
    }

    #[test]
    fn a_connection_that_goes_on_talking_is_probed_until_it_falls_silent() {
        let mut stage = Stage::with(1);
        (1..STREAK).for_each(|_| stage.received(0));
        assert!(!stage.is_probed(0));
        stage.received(0);
        assert!(stage.is_probed(0));
        for _ in 0..LOOKS {
            assert!(stage.probes.look(&mut stage.ring, &mut Vec::new()));
        }
        assert!(!stage.probes.look(&mut stage.ring, &mut Vec::new()));
        assert!(!stage.is_probed(0));
    }

    #[test]
    fn a_few_are_probed_and_of_many_none() {
        let mut stage = Stage::with(MOST + 1);
        for _ in 0..STREAK {
            (0..MOST).for_each(|connection| stage.received(connection));
        }
        assert_eq!(stage.probed(), (0..MOST).collect::<Vec<_>>());
        stage.probes.end(&mut stage.ring);
        assert_eq!(stage.probed(), []);
        for _ in 0..10 * STREAK {
            (0..=MOST).for_each(|connection| stage.received(connection));
        }
        assert_eq!(stage.probed(), []);
    }

    #[test]
    fn one_that_is_silent_while_another_talks_is_left_to_the_kernel() {
        let mut stage = Stage::with(2);
        (0..STREAK).for_each(|_| stage.received(0));
        (0..PATIENCE).for_each(|_| stage.received(1));
        assert_eq!(stage.probed(), [0, 1]);
        stage.received(1);
        assert_eq!(stage.probed(), [1]);
    }

    #[test]
    fn a_stream_is_left_to_the_kernel() {
        let mut stage = Stage::with(1);
        (0..STREAK).for_each(|_| stage.received(0));
        assert!(stage.is_probed(0));
        stage.probes.received(&mut stage.ring, stage.ours[0], SHORT + 1);
        assert!(!stage.is_probed(0));
        (0..10 * STREAK).for_each(|_| stage.probes.received(&mut stage.ring, stage.ours[0], SHORT + 1));
        assert!(!stage.is_probed(0));
    }

    #[test]
    fn the_connection_that_was_asked_last_is_looked_at_until_it_answers_or_falls_silent() {
        let mut stage = Stage::with(3);
        assert!(!stage.looks_for_answer());
        (0..3).for_each(|connection| stage.probes.asked(stage.ours[connection]));
        assert!(stage.looks_for_answer());
        stage.received(0);
        assert!(stage.looks_for_answer(), "another one has brought something");
        stage.received(2);
        assert!(!stage.looks_for_answer());
        stage.probes.asked(stage.ours[1]);
        (0..LOOKS).for_each(|_| assert!(stage.looks_for_answer()));
        assert!(!stage.looks_for_answer());
        stage.probes.asked(stage.ours[1]);
        stage.ring.stop_recv(stage.ours[1]);
        assert!(!stage.looks_for_answer());
    }

    #[test]
    fn an_answer_is_found_before_the_kernel_tells_of_it() {
        let mut stage = Stage::with(1);
        stage.probes.asked(stage.ours[0]);
        stage.theirs[0].write_all(b"answer").unwrap();
        let mut found = Vec::new();
        assert!(stage.probes.look_for_answer(&mut stage.ring, &mut found));
        assert!(matches!(&found[..], [Completion::Received { chunk, .. }] if stage.ring.bytes(chunk) == b"answer"));
    }

    #[test]
    fn answers_behind_a_stream_and_of_probed_connections_are_not_looked_for() {
        let mut stage = Stage::with(2);
        stage.probes.received(&mut stage.ring, stage.ours[0], SHORT + 1);
        stage.probes.asked(stage.ours[0]);
        assert_eq!(stage.probes.asked, None);
        (0..STREAK).for_each(|_| stage.received(1));
        stage.probes.asked(stage.ours[1]);
        assert_eq!(stage.probes.asked, None);
        stage.probes.asked(stage.ours[0]);
        assert_eq!(stage.probes.asked, Some(stage.ours[0]));
        stage.probes.end(&mut stage.ring);
        assert_eq!(stage.probes.asked, None);
    }

    #[test]
    fn one_that_stopped_receiving_has_to_earn_it_anew() {
        let mut stage = Stage::with(1);
        (0..STREAK).for_each(|_| stage.received(0));
        stage.ring.stop_recv(stage.ours[0]);
        assert!(!stage.probes.look(&mut stage.ring, &mut Vec::new()));
        stage.ring.recv(stage.ours[0]);
        (1..STREAK).for_each(|_| stage.received(0));
        assert!(!stage.is_probed(0));
        stage.received(0);
        assert!(stage.is_probed(0));
    }
}
