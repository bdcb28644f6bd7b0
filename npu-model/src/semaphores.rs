//! Counting semaphores of a core: acquired at a command's start, posted at its end.

use isa::npu::registers::FaultCode;
use isa::npu::{Header, SEMAPHORES};

use crate::fault::Fault;
use crate::stalls::Cause;

/// One core's copies of all semaphores, and who posted last (the reason of a wait that a post ends).
#[derive(Clone, Debug)]
pub struct Semaphores {
    count: [u8; SEMAPHORES],
    poster: [(Cause, u64); SEMAPHORES],
    posts: u64,
}

impl Default for Semaphores {
    fn default() -> Self {
        Self { count: [0; SEMAPHORES], poster: [(Cause::Dependency, 0); SEMAPHORES], posts: 0 }
    }
}

const fn index(id: u64) -> usize {
    (id & 63) as usize
}

impl Semaphores {
    /// Value of a semaphore.
    #[must_use]
    pub const fn get(&self, id: u64) -> u64 {
        self.count[index(id)] as u64
    }

    /// Sets a semaphore.
    ///
    /// # Errors
    /// If the value exceeds its 8 bits.
    pub fn set(&mut self, id: u64, value: u64) -> Result<(), Fault> {
        self.count[index(id)] = u8::try_from(value).map_err(|_| overflow(id))?;
        Ok(())
    }

    /// Adds `n`; `cause` is what a wait ended by this post was waiting for.
    ///
    /// # Errors
    /// If the value would exceed its 8 bits.
    pub fn post(&mut self, id: u64, n: u64, cause: Cause) -> Result<(), Fault> {
        let i = index(id);
        let sum = u64::from(self.count[i]) + n;
        self.count[i] = u8::try_from(sum).map_err(|_| overflow(id))?;
        self.posts += 1;
        self.poster[i] = (cause, self.posts);
        Ok(())
    }

    /// Whether both acquires of a header can be taken.
    #[must_use]
    pub fn available(&self, h: &Header) -> bool {
        if h.w0_n > 0 && h.w1_n > 0 && h.w0_id == h.w1_id {
            return self.get(h.w0_id) >= h.w0_n + h.w1_n;
        }
        (h.w0_n == 0 || self.get(h.w0_id) >= h.w0_n) && (h.w1_n == 0 || self.get(h.w1_id) >= h.w1_n)
    }

    /// Takes both acquires if they are available.
    pub fn acquire(&mut self, h: &Header) -> bool {
        if !self.available(h) {
            return false;
        }
        for (id, n) in [(h.w0_id, h.w0_n), (h.w1_id, h.w1_n)] {
            let i = index(id);
            self.count[i] -= u8::try_from(n).unwrap_or(u8::MAX);
        }
        true
    }

    /// Returns what a header's acquires took.
    pub fn give_back(&mut self, h: &Header) {
        for (id, n) in [(h.w0_id, h.w0_n), (h.w1_id, h.w1_n)] {
            let i = index(id);
            self.count[i] = self.count[i].saturating_add(u8::try_from(n).unwrap_or(u8::MAX));
        }
    }

    /// What the latest of the posts behind a header's acquires stood for.
    #[must_use]
    pub fn reason(&self, h: &Header) -> Cause {
        let mut latest = (Cause::Dependency, 0);
        for (id, n) in [(h.w0_id, h.w0_n), (h.w1_id, h.w1_n)] {
            if n > 0 && self.poster[index(id)].1 >= latest.1 {
                latest = self.poster[index(id)];
            }
        }
        latest.0
    }
}

const fn overflow(id: u64) -> Fault {
    Fault::new(FaultCode::SemaphoreOverflow, id, "a semaphore passed 255")
}
