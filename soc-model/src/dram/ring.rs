//! A buffer of requests in age order, with one mask of its slots per bank.
//!
//! Models: the read or write buffer of a controller. Does not model: time. Source: our own.
#![allow(
    clippy::cast_possible_truncation,
    reason = "ring positions are masked to their width where they are made"
)]

use super::{BANKS, Request};

const SLOTS: u32 = 64;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    pub(super) request: Request,
    pub(super) sequence: u64,
    pub(super) accepted: u64,
}

/// A buffer whose slots are in age order, counted from `head`.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    head: u32,
    next: u32,
    pub(super) count: u32,
    pub(super) live: u64,
    /// Slots above class 0, and those of each class above 0.
    pub(super) urgent: u64,
    classes: [u64; 3],
    pub(super) counted: u64,
    pub(super) all: [u64; BANKS],
    pub(super) hits: [u64; BANKS],
    /// Banks with a request, and banks with a row hit.
    pub(super) banks: u16,
    pub(super) hit_banks: u16,
    pub(super) slots: [Slot; SLOTS as usize],
}

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            head: 0,
            next: 0,
            count: 0,
            live: 0,
            urgent: 0,
            classes: [0; 3],
            counted: 0,
            all: [0; BANKS],
            hits: [0; BANKS],
            banks: 0,
            hit_banks: 0,
            slots: [Slot::default(); SLOTS as usize],
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// The oldest of a set of slots.
    #[inline]
    pub(super) fn oldest(&self, set: u64) -> usize {
        ((set.rotate_right(self.head & (SLOTS - 1)).trailing_zeros() + self.head) & (SLOTS - 1)) as usize
    }

    /// The oldest slot of the highest class in a set that has one above class 0.
    pub(super) fn oldest_of_highest_class(&self, set: u64) -> usize {
        let highest = self.classes.iter().rev().map(|class| class & set).find(|&m| m != 0);
        self.oldest(highest.unwrap_or(set))
    }

    /// Those of a bank's `misses` that were accepted before its oldest row hit.
    pub(super) fn older_than_hits(&self, bank: usize, misses: u64) -> u64 {
        if self.hits[bank] == 0 {
            return misses;
        }
        let limit = self.slots[self.oldest(self.hits[bank])].accepted;
        let (mut rest, mut out) = (misses, 0);
        while rest != 0 {
            let position = rest.trailing_zeros();
            rest &= rest - 1;
            out |= u64::from(self.slots[position as usize].accepted < limit) << position;
        }
        out
    }

    /// Takes a request; `pinned` is a slot somebody remembers, which may move.
    #[inline]
    pub(super) fn push(&mut self, slot: Slot, hit: bool, pinned: Option<&mut u8>) {
        if self.live == 0 {
            self.head = self.next;
        } else if self.next.wrapping_sub(self.head) >= SLOTS {
            let gap = self.live.rotate_right(self.head & (SLOTS - 1)).trailing_zeros();
            self.head = self.head.wrapping_add(gap);
            if gap == 0 {
                self.compact(pinned);
            }
        }
        let position = (self.next & (SLOTS - 1)) as usize;
        self.next = self.next.wrapping_add(1);
        self.put(position, slot, hit);
        self.counted &= !(1 << position);
    }

    #[inline]
    fn put(&mut self, position: usize, slot: Slot, hit: bool) {
        let bit = 1u64 << position;
        let bank = usize::from(slot.request.place.bank);
        self.live |= bit;
        self.count += 1;
        self.all[bank] |= bit;
        self.banks |= 1 << bank;
        if hit {
            self.hits[bank] |= bit;
            self.hit_banks |= 1 << bank;
        }
        if slot.request.class > 0 {
            self.urgent |= bit;
            self.classes[usize::from(slot.request.class.min(3)) - 1] |= bit;
        }
        self.slots[position] = slot;
    }

    /// Closes the holes that out-of-order departures left; rare.
    #[cold]
    fn compact(&mut self, mut pinned: Option<&mut u8>) {
        let old = self.clone();
        let remembered = pinned.as_deref().copied();
        (self.live, self.count, self.urgent, self.counted) = (0, 0, 0, 0);
        self.classes = [0; 3];
        (self.banks, self.hit_banks) = (0, 0);
        (self.all, self.hits) = ([0; BANKS], [0; BANKS]);
        (self.head, self.next) = (0, 0);
        let mut rest = old.live;
        while rest != 0 {
            let from = old.oldest(rest);
            rest &= !(1 << from);
            let slot = old.slots[from];
            let to = self.next as usize;
            self.put(to, slot, old.hits[usize::from(slot.request.place.bank)] >> from & 1 == 1);
            self.counted |= (old.counted >> from & 1) << to;
            if let (Some(p), true) = (&mut pinned, remembered == Some(from as u8)) {
                **p = to as u8;
            }
            self.next += 1;
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, position: usize) -> Slot {
        let bit = 1u64 << position;
        assert!(self.live & bit != 0, "a request leaves once");
        let slot = self.slots[position];
        let bank = usize::from(slot.request.place.bank);
        self.live &= !bit;
        self.count -= 1;
        if slot.request.class > 0 {
            self.urgent &= !bit;
            self.classes[usize::from(slot.request.class.min(3)) - 1] &= !bit;
        }
        self.all[bank] &= !bit;
        self.hits[bank] &= !bit;
        if self.all[bank] == 0 {
            self.banks &= !(1 << bank);
        }
        if self.hits[bank] == 0 {
            self.hit_banks &= !(1 << bank);
        }
        slot
    }

    pub(super) fn opened(&mut self, bank: usize, row: u32) {
        let mut rest = self.all[bank];
        let mut hits = 0;
        while rest != 0 {
            let position = rest.trailing_zeros();
            rest &= rest - 1;
            if self.slots[position as usize].request.place.row == row {
                hits |= 1 << position;
            }
        }
        self.hits[bank] = hits;
        if hits != 0 {
            self.hit_banks |= 1 << bank;
        }
    }

    pub(super) fn closed(&mut self, bank: usize) {
        self.hits[bank] = 0;
        self.hit_banks &= !(1 << bank);
    }
}
