//! A value of any type, packed for the way to another core.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::wire::failure::panicked_with;

/// Room for a small value, or for the pointer to a large one.
///
/// `MaybeUninit` because a value may have padding and pointers in it: copying it as plain bytes would be undefined.
#[repr(align(16))]
struct Space(MaybeUninit<[u8; Parcel::INLINE]>);

/// What a parcel has to know about the type it no longer names.
struct Kind {
    id: TypeId,
    size: usize,
    boxed: bool,
    name: fn() -> &'static str,
    /// None if the value needs none.
    drop: Option<unsafe fn(&mut Space)>,
}

/// Ties a type to its [`Kind`].
struct Of<T>(PhantomData<T>);

impl<T: 'static> Of<T> {
    const FITS: bool = size_of::<T>() <= Parcel::INLINE && align_of::<T>() <= align_of::<Space>();

    const KIND: &'static Kind = &Kind {
        id: TypeId::of::<T>(),
        size: size_of::<T>(),
        boxed: !Self::FITS,
        name: std::any::type_name::<T>,
        drop: if Self::FITS && !std::mem::needs_drop::<T>() { None } else { Some(Self::drop_packed) },
    };

    /// Moves a value into `space`, over whatever is there.
    #[inline]
    fn pack(space: &mut Space, value: T) {
        let at = space.0.as_mut_ptr();
        if Self::FITS {
            // SAFETY: `at` is valid for `INLINE` bytes and aligned to 16, and `FITS` says that `T` asks for no more.
            unsafe { at.cast::<T>().write(value) }
        } else {
            let value = Box::into_raw(Box::new(value));
            // SAFETY: `at` is valid for `INLINE` bytes and aligned to 16, more than a pointer needs.
            unsafe { at.cast::<*mut T>().write(value) }
        }
    }

    /// Moves the value out of `space`.
    ///
    /// # Safety
    /// `space` was filled by [`pack`](Self::pack) with a `T`, and nobody reads it as a value afterwards.
    #[inline]
    unsafe fn unpack(space: &mut Space) -> T {
        let at = space.0.as_mut_ptr();
        if Self::FITS {
            // SAFETY: the caller promises a `T` here that nobody reads again; `Space` is aligned for it, see `FITS`.
            unsafe { at.cast::<T>().read() }
        } else {
            // SAFETY: the caller promises that `pack` put the pointer of a `Box<T>` here, and that nobody uses it again.
            *unsafe { Box::from_raw(at.cast::<*mut T>().read()) }
        }
    }

    /// The value in `space`.
    ///
    /// # Safety
    /// `space` was filled by [`pack`](Self::pack) with a `T`, and nothing has moved the value out.
    unsafe fn look(space: &Space) -> &T {
        let at = space.0.as_ptr();
        if Self::FITS {
            // SAFETY: the caller promises a `T` here; `Space` is aligned for it, see `FITS`.
            unsafe { &*at.cast::<T>() }
        } else {
            // SAFETY: the caller promises that `pack` put the pointer of a `Box<T>` here, which still owns the value.
            unsafe { &**at.cast::<*const T>() }
        }
    }

    /// Drops the value in `space` where it lies.
    ///
    /// # Safety
    /// As for [`Of::unpack`].
    unsafe fn drop_packed(space: &mut Space) {
        let at = space.0.as_mut_ptr();
        if Self::FITS {
            // SAFETY: the caller promises a `T` here that nobody reads again; `Space` is aligned for it, see `FITS`.
            unsafe { at.cast::<T>().drop_in_place() }
        } else {
            // SAFETY: the caller promises that `pack` put the pointer of a `Box<T>` here, and that nobody uses it again.
            drop(unsafe { Box::from_raw(at.cast::<*mut T>().read()) });
        }
    }
}

/// An owned value whose type is known only to those who pack and unpack it.
///
/// A lane carries messages of every type, so it cannot name one. A `Box<dyn Any>` could, at the price of an allocation
/// per message. A parcel has room for [`INLINE`](Parcel::INLINE) bytes in itself and allocates only for larger values,
/// or for those aligned to more than 16 bytes.
///
/// Moving a parcel moves the bytes of the value; no code of the value runs until it is taken or dropped. A parcel may
/// be taken or dropped on another thread than packed it, which is why [`new`](Parcel::new) demands `Send`.
// The kind comes first, so that a small value shares its cache line.
#[repr(C)]
pub struct Parcel {
    kind: &'static Kind,
    space: Space,
    /// Neither `Send` nor `Sync` by itself: what the space holds is unknown here.
    unknown: PhantomData<*mut ()>,
}

// SAFETY: the only thing of a thread in a parcel is the value, and `new`, the only way to make a parcel, demands that it
// is `Send`.
unsafe impl Send for Parcel {}

impl Parcel {
    /// The largest value, in bytes, that needs no allocation.
    pub const INLINE: usize = 128;

    /// Packs a value. Callable on any thread.
    #[inline]
    pub fn new<T: Send + 'static>(value: T) -> Parcel {
        let mut space = Space(MaybeUninit::uninit());
        Of::pack(&mut space, value);
        Parcel { kind: Of::<T>::KIND, space, unknown: PhantomData }
    }

    /// Packs a value where the parcel lies, after dropping what was in it. Only the value moves, not the whole parcel.
    #[inline]
    pub fn fill<T: Send + 'static>(&mut self, value: T) {
        self.drop_value();
        Of::pack(&mut self.space, value);
        self.kind = Of::<T>::KIND;
    }

    /// Whether a `T` has its place in the parcel itself, so that none is allocated for it.
    #[inline]
    pub const fn has_place_for<T: 'static>() -> bool {
        Of::<T>::FITS
    }

    /// Whether the value is a `T`.
    #[inline]
    pub fn is<T: 'static>(&self) -> bool {
        self.kind.id == TypeId::of::<T>()
    }

    /// Unpacks the value.
    ///
    /// # Errors
    /// Gives the parcel back, untouched, if the value is not a `T`.
    #[inline]
    #[expect(clippy::result_large_err, reason = "the parcel is handed back as it came; boxing it would allocate")]
    pub fn take<T: 'static>(self) -> Result<T, Parcel> {
        if !self.is::<T>() {
            return Err(self);
        }
        let mut emptied = ManuallyDrop::new(self);
        // SAFETY: `is` compared the very type that `new` was called with, and `ManuallyDrop` keeps `drop` from the value.
        Ok(unsafe { Of::<T>::unpack(&mut emptied.space) })
    }

    /// Unpacks the value where the parcel lies, which holds nothing, `()`, afterwards. None if the value is not a `T`: then
    /// it stays.
    #[inline]
    pub fn remove<T: 'static>(&mut self) -> Option<T> {
        if !self.is::<T>() {
            return None;
        }
        self.kind = Of::<()>::KIND;
        // SAFETY: `is` compared the very type that was packed, and the kind now says that nothing is left to be read.
        Some(unsafe { Of::<T>::unpack(&mut self.space) })
    }

    /// Moves what it holds into another parcel, after dropping what was in that; this one holds nothing, `()`, afterwards.
    /// Only the value moves, not the whole parcel.
    #[inline]
    pub fn move_into(&mut self, into: &mut Parcel) {
        into.drop_value();
        let size = if self.kind.boxed { size_of::<*mut ()>() } else { self.kind.size };
        let (from, to) = (self.space.0.as_ptr().cast::<MaybeUninit<u8>>(), into.space.0.as_mut_ptr().cast());
        // SAFETY: the value, or the pointer to it, is at the beginning of the space, which has at least `size` bytes; two
        // exclusive borrows do not overlap. It exists once: the kind moves along and leaves that of `()`.
        unsafe { ptr::copy_nonoverlapping(from, to, size) };
        into.kind = std::mem::replace(&mut self.kind, Of::<()>::KIND);
    }

    /// Drops what it holds; it holds nothing, `()`, afterwards.
    #[inline]
    pub fn clear(&mut self) {
        self.drop_value();
        self.kind = Of::<()>::KIND;
    }

    /// Moves everything out into another parcel; this one holds nothing, `()`, afterwards.
    #[inline]
    pub fn take_out(&mut self) -> Parcel {
        std::mem::replace(self, Parcel::new(()))
    }

    /// The value where it lies; none if it is not a `T`.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        // SAFETY: `is` compares the very type that `new` was called with, and only `take`, which consumes the parcel,
        // moves the value out.
        self.is::<T>().then(|| unsafe { Of::<T>::look(&self.space) })
    }

    /// Bytes of the value itself. What it owns elsewhere, such as the text of a `String`, is not seen.
    #[inline]
    pub fn size(&self) -> usize {
        self.kind.size
    }

    /// Whether the value is in an allocation of its own, having no place in the parcel.
    #[inline]
    pub fn is_boxed(&self) -> bool {
        self.kind.boxed
    }

    /// The name of the value's type, for logs and errors. Not stable between compilers.
    pub fn type_name(&self) -> &'static str {
        (self.kind.name)()
    }
}

impl Parcel {
    /// Drops the value; the space is not to be read again.
    #[inline]
    fn drop_value(&mut self) {
        if let Some(drop) = self.kind.drop {
            self.drop_with(drop);
        }
    }

    fn drop_with(&mut self, drop: unsafe fn(&mut Space)) {
        let name = self.kind.name;
        // What comes after a panic finds nothing to drop.
        self.kind = Of::<()>::KIND;
        let space = &mut self.space;
        // SAFETY: `drop` comes from the kind of the value in `space`, which the kind no longer tells of, so that nothing
        // uses the value after this; `take` never lets an emptied parcel come here.
        let dropping = AssertUnwindSafe(|| unsafe { drop(space) });
        // Parcels are dropped all over a core's loop, and the value's drop is user code: its panic ends here.
        if let Err(panic) = catch_unwind(dropping) {
            tracing::error!(target: "ringpost::endpoint", panic = panicked_with(panic), kind = name(), "the drop of a message or reply panicked");
        }
    }
}

impl Default for Parcel {
    /// Holds nothing, `()`.
    #[inline]
    fn default() -> Parcel {
        Parcel::new(())
    }
}

impl Drop for Parcel {
    #[inline]
    fn drop(&mut self) {
        self.drop_value();
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Parcel").field(&self.type_name()).finish()
    }
}
