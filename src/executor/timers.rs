//! The timers of one core.

use slab::Slab;

const TICK_BITS: u32 = 20;
/// A tick in nanoseconds: 2^20, about a millisecond.
pub const TICK: u64 = 1 << TICK_BITS;
/// A level has 64 slots, so that one word tells which are occupied.
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const LEVELS: usize = 6;
const TOP: usize = LEVELS - 1;
/// The farthest that a timer is filed ahead, in ticks (820 days): one slot less than a turn of the top level, so that
/// it never lands in the slot that is current.
const HORIZON: u64 = (SLOTS as u64 - 1) << (LEVEL_BITS * TOP as u32);
/// The list of timers that were due when they were armed comes after those of all slots.
const DUE: usize = LEVELS * SLOTS;
const NONE: u32 = u32::MAX;

/// Names an armed timer. It is stale once the timer has fired or was cancelled, and is then ignored, also if its
/// place is used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerKey {
    place: u32,
    serial: u32,
}

struct Timer {
    /// The tick at whose beginning it fires.
    tick: u64,
    token: u64,
    serial: u32,
    before: u32,
    after: u32,
    list: u32,
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
    /// No timer of the list is filed under an earlier tick. Exact, but for timers cancelled since.
    earliest: u64,
}

const EMPTY: List = List { first: NONE, last: NONE, earliest: u64::MAX };

/// A hierarchical timer wheel: every ask arms a timer and nearly none fires, so arming and cancelling must be cheap
/// and leave nothing behind.
///
/// Level 0 has a slot for each of the next 64 ticks, level 1 one for each 64 ticks, and so on; a timer is filed in the
/// slot of the highest digit, in base 64, in which its tick differs from the present one. When the time enters a slot
/// of a higher level, its timers are filed anew, further down. Each timer moves at most five times, and both
/// arming and cancelling are a few writes to a doubly linked list.
///
/// Time is a number of nanoseconds that the caller tells; the wheel reads no clock. A timer fires at the first
/// tick that begins at or after its deadline: never early, and at most one tick late.
pub struct TimerWheel {
    timers: Slab<Timer>,
    lists: Box<[List; DUE + 1]>,
    /// Bit by bit, which slots of a level have timers.
    occupied: [u64; LEVELS],
    /// The tick up to which timers have fired.
    now: u64,
    serial: u32,
}

impl TimerWheel {
    /// A wheel without timers at the time `now`, in nanoseconds.
    pub fn new(now: u64) -> TimerWheel {
        TimerWheel {
            timers: Slab::new(),
            lists: Box::new([EMPTY; DUE + 1]),
            occupied: [0; LEVELS],
            now: now >> TICK_BITS,
            serial: 0,
        }
    }

    /// Arms a timer for a time in nanoseconds; `token` comes back when it fires. One whose deadline has passed fires
    /// at the next [`expire`](TimerWheel::expire). Up to 2^32 - 1 timers; memory grows to the most that were armed at a
    /// time, and is kept.
    #[inline]
    pub fn arm(&mut self, deadline: u64, token: u64) -> TimerKey {
        self.serial = self.serial.wrapping_add(1);
        let tick = deadline.div_ceil(TICK);
        let timer = Timer { tick, token, serial: self.serial, before: NONE, after: NONE, list: 0 };
        let place = self.timers.insert(timer) as u32;
        self.file(place, tick);
        TimerKey { place, serial: self.serial }
    }

    /// Disarms a timer; false if it has fired or was cancelled before.
    #[inline]
    pub fn cancel(&mut self, key: TimerKey) -> bool {
        let place = key.place as usize;
        let Some(timer) = self.timers.get(place).filter(|timer| timer.serial == key.serial) else { return false };
        let (before, after, list) = (timer.before, timer.after, timer.list as usize);
        match self.timers.get_mut(before as usize) {
            Some(timer) => timer.after = after,
            None => self.lists[list].first = after,
        }
        match self.timers.get_mut(after as usize) {
            Some(timer) => timer.before = before,
            None => self.lists[list].last = before,
        }
        if self.lists[list].first == NONE {
            self.vacate(list);
        }
        self.timers.remove(place);
        true
    }

    /// Moves a timer by so many nanoseconds. Its new name; none if it has fired or was cancelled before.
    pub fn postpone(&mut self, key: TimerKey, by: u64) -> Option<TimerKey> {
        let timer = self.timers.get(key.place as usize).filter(|timer| timer.serial == key.serial)?;
        let (deadline, token) = (timer.tick.saturating_mul(TICK), timer.token);
        self.cancel(key);
        Some(self.arm(deadline.saturating_add(by), token))
    }

    /// When to call [`expire`](TimerWheel::expire) next, in nanoseconds; a time in the past if a timer is due. Exact,
    /// unless the next timer was cancelled: then it can be too early, once.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.lists[DUE].first != NONE {
            return Some(self.now << TICK_BITS);
        }
        let (list, _) = self.next_slot()?;
        Some(self.lists[list].earliest.saturating_mul(TICK))
    }

    /// Appends the tokens of all timers that are due at the time `now`, in nanoseconds, to `fired` and disarms them.
    /// Earlier ticks come first; within a tick the order is open. A `now` before the last one counts as that.
    pub fn expire(&mut self, now: u64, fired: &mut Vec<u64>) {
        let until = (now >> TICK_BITS).max(self.now);
        if until == self.now && self.lists[DUE].first == NONE {
            return;
        }
        self.empty(DUE, fired);
        while let Some((list, start)) = self.next_slot()
            && start <= until
        {
            self.now = start;
            self.empty(list, fired);
        }
        self.now = until;
    }

    /// How many timers are armed.
    #[inline]
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether none is armed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// Puts a timer at the end of the list that its tick belongs to.
    #[inline]
    fn file(&mut self, place: u32, tick: u64) {
        let filed = tick.min(self.now + HORIZON);
        let list = self.list_of(filed);
        let List { last, earliest, .. } = &mut self.lists[list];
        *earliest = filed.min(*earliest);
        let before = std::mem::replace(last, place);
        match self.timers.get_mut(before as usize) {
            Some(timer) => timer.after = place,
            None => self.lists[list].first = place,
        }
        if let Some(timer) = self.timers.get_mut(place as usize) {
            timer.before = before;
            timer.after = NONE;
            timer.list = list as u32;
        }
        if let Some(level) = self.occupied.get_mut(list / SLOTS) {
            *level |= 1 << (list % SLOTS);
        }
    }

    #[inline]
    fn list_of(&self, tick: u64) -> usize {
        if tick <= self.now {
            return DUE;
        }
        let level = ((self.now ^ tick).ilog2() / LEVEL_BITS).min(TOP as u32);
        let slot = (tick >> (level * LEVEL_BITS)) as usize % SLOTS;
        level as usize * SLOTS + slot
    }

    /// The list of the slot that comes next, and the tick at which it begins. All of a level lies before the next
    /// slot of the level above, so the lowest level that has any timers has it.
    fn next_slot(&self) -> Option<(usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = level as u32 * LEVEL_BITS;
        let digits = self.now >> shift;
        let current = digits as u32 % SLOTS as u32;
        // On the top level the slots that come next may lie beyond the end of the turn.
        let ahead = self.occupied[level].rotate_right(current).trailing_zeros();
        let digits = digits + u64::from(ahead);
        Some((level * SLOTS + digits as usize % SLOTS, digits << shift))
    }

    /// Empties a list: timers that are due fire, the others are filed anew.
    fn empty(&mut self, list: usize, fired: &mut Vec<u64>) {
        let mut next = self.lists[list].first;
        self.vacate(list);
        while let Some(timer) = self.timers.get(next as usize) {
            let (place, tick) = (next, timer.tick);
            next = timer.after;
            if tick <= self.now {
                fired.push(self.timers.remove(place as usize).token);
            } else {
                self.file(place, tick);
            }
        }
    }

    fn vacate(&mut self, list: usize) {
        self.lists[list] = EMPTY;
        if let Some(level) = self.occupied.get_mut(list / SLOTS) {
            *level &= !(1 << (list % SLOTS));
        }
    }
}

impl std::fmt::Debug for TimerWheel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimerWheel").field("len", &self.len()).field("next", &self.next_deadline()).finish()
    }
}
