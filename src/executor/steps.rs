//! Steps of work, counted by tests.

/// Counts the steps that a structure takes, so that tests can bound work without a clock. Outside of unit tests it is
/// empty and counts nothing.
#[derive(Debug, Default)]
pub struct Steps {
    #[cfg(test)]
    taken: std::cell::Cell<usize>,
}

impl Steps {
    /// None yet.
    pub const fn new() -> Steps {
        Steps {
            #[cfg(test)]
            taken: std::cell::Cell::new(0),
        }
    }

    /// Counts more steps.
    #[inline]
    pub fn add(&self, _steps: usize) {
        #[cfg(test)]
        self.taken.set(self.taken.get() + _steps);
    }

    /// All steps so far.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.taken.get()
    }
}
