//! How deep the stack of the current thread may grow.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Stack that is kept for what code does at the deepest place that is allowed, such as to panic: 64 KiB, or a quarter
/// of a smaller stack than 256 KiB.
const RESERVE: usize = 64 << 10;

thread_local! {
    static FLOOR: Cell<usize> = const { Cell::new(0) };
}

/// The lowest address that code which nests as its input says may reach on this thread. The first call on a thread asks
/// the system.
pub fn stack_floor() -> usize {
    if FLOOR.get() == 0 {
        FLOOR.set(find_floor());
    }
    FLOOR.get()
}

fn find_floor() -> usize {
    let mark = 0u8;
    let here = &raw const mark as usize;
    match bounds().filter(|stack| stack.contains(&here)) {
        Some(stack) => stack.start + (stack.len() / 4).min(RESERVE),
        // Another stack than the thread's own: as much of it as any should have.
        None => here.saturating_sub(RESERVE),
    }
}

/// The addresses of this thread's stack, without its guard.
fn bounds() -> Option<Range<usize>> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: `pthread_self` is always this thread, which runs; `attributes` has room for what is written there.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut start, mut size, mut guard) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: the call above has succeeded, so `attributes` is initialised; it is destroyed once, and not used after.
    // The others point at variables of the right types that outlive the calls.
    let failed = unsafe {
        let failed = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut size)
            | libc::pthread_attr_getguardsize(attributes.as_ptr(), &raw mut guard);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        failed
    };
    let (start, end) = (start as usize, (start as usize).checked_add(size)?);
    // Some C libraries count the guard as a part of the stack.
    (failed == 0 && size > guard).then(|| start + guard..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_below_this_frame_and_a_reserve_above_the_end_of_the_stack() {
        for (size, reserve) in [(64 << 10, 12 << 10), (1 << 20, 64 << 10)] {
            let thread = std::thread::Builder::new().stack_size(size).spawn(move || {
                let mark = 0u8;
                let (here, stack) = (&raw const mark as usize, bounds().unwrap());
                assert!(stack.contains(&here) && stack.len() > size / 2, "{stack:?}");
                assert!(stack_floor() < here, "{} is not below {here}", stack_floor());
                assert!(stack_floor() - stack.start >= reserve, "{} is too close to {stack:?}", stack_floor());
            });
            thread.unwrap().join().unwrap();
        }
    }
}
