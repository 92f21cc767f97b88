use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::parcel::Parcel;

fn there_and_back<const N: usize>() {
    let value: [u8; N] = std::array::from_fn(|i| i as u8);
    let parcel = Parcel::new(value);
    assert!(parcel.is::<[u8; N]>());
    assert_eq!((parcel.get::<[u8; N]>(), parcel.get::<String>()), (Some(&value), None));
    assert_eq!(parcel.take::<[u8; N]>().unwrap(), value);
}

#[test]
fn what_moves_from_parcel_to_parcel_exists_once_whatever_its_size() {
    fn moved<T: Send + PartialEq + std::fmt::Debug + Clone + 'static>(value: T) {
        let dropped = Arc::new(());
        let (mut from, mut into) = (Parcel::default(), Parcel::new(dropped.clone()));
        from.fill(value.clone());
        from.move_into(&mut into);
        assert!(from.is::<()>() && Arc::strong_count(&dropped) == 1);
        assert_eq!((into.size(), into.remove()), (size_of::<T>(), Some(value)));
    }
    moved(());
    moved(7u8);
    moved([7u64; 16]);
    moved([7u64; 17]);
    moved("text".to_owned());
}

#[test]
fn a_parcel_is_filled_and_cleared_again_and_again_and_drops_each_value_once() {
    let item = Arc::new(());
    let mut parcel = Parcel::default();
    for _ in 0..2 {
        parcel.fill(item.clone());
        assert_eq!(Arc::strong_count(&item), 2, "the one before was dropped");
    }
    parcel.clear();
    assert!(parcel.is::<()>() && Arc::strong_count(&item) == 1);
    parcel.fill(item.clone());
    assert!(parcel.take_out().is::<Arc<()>>() && parcel.is::<()>());
    assert_eq!(Arc::strong_count(&item), 1);
}

#[test]
fn a_value_is_removed_from_where_it_lies_once_and_by_its_own_type_only() {
    let item = Arc::new(());
    let mut parcel = Parcel::new(item.clone());
    assert!(parcel.remove::<u8>().is_none());
    assert!(parcel.remove::<Arc<()>>().is_some_and(|removed| Arc::ptr_eq(&removed, &item)));
    assert!(parcel.remove::<Arc<()>>().is_none() && parcel.is::<()>());
    drop(parcel);
    assert_eq!(Arc::strong_count(&item), 1, "nothing is left to be dropped");
}

#[test]
fn values_of_all_sizes_come_back() {
    there_and_back::<0>();
    there_and_back::<1>();
    there_and_back::<127>();
    there_and_back::<128>();
    there_and_back::<129>();
    there_and_back::<4096>();
}

#[repr(align(32))]
#[derive(Debug, PartialEq)]
struct Aligned(u64);

#[test]
fn a_value_with_a_large_alignment_is_aligned() {
    let parcels: Vec<Parcel> = (0..8).map(|n| Parcel::new(Aligned(n))).collect();
    for (n, parcel) in parcels.into_iter().enumerate() {
        let value = Box::new(parcel.take::<Aligned>().unwrap());
        assert_eq!(&*value as *const Aligned as usize % 32, 0);
        assert_eq!(*value, Aligned(n as u64));
    }
}

#[test]
fn a_value_that_owns_memory_survives_the_moves() {
    let mut parcels = vec![Parcel::new(String::from("hello"))];
    parcels.reserve(100);
    let parcel = Box::new(parcels.remove(0));
    assert_eq!(parcel.take::<String>().unwrap(), "hello");
}

/// Counts its drops; `N` bytes of ballast choose between inline and boxed.
struct Counted<const N: usize> {
    drops: Arc<AtomicUsize>,
    _ballast: [u8; N],
}

impl<const N: usize> Drop for Counted<N> {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

fn drops_once<const N: usize>() {
    let drops = Arc::new(AtomicUsize::new(0));
    let pack = || Parcel::new(Counted { drops: drops.clone(), _ballast: [0; N] });

    drop(pack());
    assert_eq!(drops.load(Ordering::Relaxed), 1);

    let value = pack().take::<Counted<N>>().unwrap();
    assert_eq!(drops.load(Ordering::Relaxed), 1, "taking is not dropping");
    drop(value);
    assert_eq!(drops.load(Ordering::Relaxed), 2);

    let refused = pack().take::<u8>().unwrap_err();
    assert_eq!(drops.load(Ordering::Relaxed), 2, "a wrong guess is not dropping");
    drop(refused);
    assert_eq!(drops.load(Ordering::Relaxed), 3);
}

#[test]
fn inline_and_boxed_values_are_dropped_exactly_once() {
    drops_once::<0>();
    drops_once::<64>();
    drops_once::<1000>();
}

#[test]
fn a_wrong_guess_gives_the_parcel_back() {
    let parcel = Parcel::new(7_u32).take::<i32>().unwrap_err();
    assert!(!parcel.is::<i32>());
    assert_eq!(parcel.type_name(), "u32");
    assert_eq!(format!("{parcel:?}"), "Parcel(\"u32\")");
    assert_eq!(parcel.take::<u32>().unwrap(), 7);
}

#[test]
fn a_parcel_within_a_parcel_is_boxed_and_intact() {
    let outer = Parcel::new(Parcel::new(5_u8));
    assert_eq!(outer.take::<Parcel>().unwrap().take::<u8>().unwrap(), 5);
}

#[test]
fn a_value_that_is_send_but_not_sync_can_travel() {
    let parcel = Parcel::new(Cell::new(3));
    let sum = thread::spawn(move || parcel.take::<Cell<i32>>().unwrap().get() + 1).join().unwrap();
    assert_eq!(sum, 4);
}

#[test]
fn a_parcel_is_its_room_and_one_pointer() {
    assert_eq!(size_of::<Parcel>(), Parcel::INLINE + 16);
    assert_eq!(size_of::<Option<Parcel>>(), size_of::<Parcel>());
}

#[test]
fn a_parcel_that_is_filled_again_drops_what_it_held_and_gives_all_of_it_away() {
    let drops = Arc::new(AtomicUsize::new(0));
    let mut parcel = Parcel::new(Counted { drops: drops.clone(), _ballast: [0; 8] });
    parcel.fill(Counted { drops: drops.clone(), _ballast: [0; 1000] });
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    let other = parcel.take_out();
    assert!(parcel.is::<()>());
    drop(parcel);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    drop(other);
    assert_eq!(drops.load(Ordering::Relaxed), 2);
}
