//! Credit-based flow control: a sender may have only as much in flight as the receiver granted.

/// Credits of one link. Sending takes one, the receiver's completion returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credits {
    capacity: u32,
    free: u32,
}

impl Credits {
    /// A link with room for `capacity` items in flight.
    ///
    /// # Panics
    /// If the capacity is zero: such a link could never carry anything.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        assert!(capacity > 0, "a link needs at least one credit");
        Self { capacity, free: capacity }
    }

    /// Takes a credit; false means the sender must wait.
    #[must_use]
    pub fn take(&mut self) -> bool {
        if self.free == 0 {
            return false;
        }
        self.free -= 1;
        true
    }

    /// Returns a credit.
    ///
    /// # Panics
    /// If more come back than were taken.
    pub fn give(&mut self) {
        assert!(self.free < self.capacity, "credit returned twice");
        self.free += 1;
    }

    /// Items in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.capacity - self.free
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn quiescent(&self) -> bool {
        self.free == self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_pressure_and_quiescence() {
        let mut c = Credits::new(2);
        assert!(c.take() && c.take() && !c.take());
        assert_eq!(c.in_flight(), 2);
        c.give();
        assert!(c.take());
        c.give();
        c.give();
        assert!(c.quiescent());
    }

    #[test]
    #[should_panic(expected = "credit returned twice")]
    fn a_credit_is_returned_once() {
        Credits::new(1).give();
    }
}
