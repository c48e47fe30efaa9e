//! The stop word: how an owner gets a vCPU thread out of `KVM_RUN`, once and for certain. Model-checked by `tests/loom_stop.rs`.
//!
//! Owner: word, then bell (`immediate_exit`), then signal. Thread: reads the word before each `KVM_RUN`. A signal that comes before
//! the ioctl is lost, but then the bell was already up and the ioctl returns at once; one that comes during it ends it.
//! The bell is only lowered by the thread, which then reads the word again with a read-modify-write.

use crate::atomic::{AtomicU32, Ordering};

/// What the owner wants of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Execute the guest.
    Run,
    /// Leave the guest, complete its pending I/O, say so under this number (below 2^30), and wait for another order.
    Pause(u32),
    /// Leave the guest, complete its pending I/O and end.
    Stop,
}

/// One vCPU's order, written by its owner and read by its thread.
#[derive(Debug)]
pub(crate) struct StopWord {
    word: AtomicU32,
}

impl StopWord {
    /// A word that says pause 0: a vCPU executes nothing until it is resumed for the first time.
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU32::new(PAUSE),
        }
    }

    /// The order now; the thread asks before each `KVM_RUN`, at the price of one load.
    pub(crate) fn order(&self) -> Order {
        decode(self.word.load(Ordering::Acquire))
    }

    /// Owner: gives an order that ends the current `KVM_RUN`. `raise` sets the bell, `signal` interrupts the thread.
    pub(crate) fn demand(&self, order: Order, raise: impl FnOnce(), signal: impl FnOnce()) {
        self.word.swap(encode(order), Ordering::SeqCst);
        raise();
        signal();
    }

    /// Owner: takes a pause back, unless a stop has been ordered; the thread must then be unparked.
    pub(crate) fn resume(&self) {
        // Only the owner writes the word, so nothing comes between the two steps.
        if let Order::Pause(_) = self.order() {
            self.word.swap(RUN, Ordering::SeqCst);
        }
    }

    /// Thread, about to run again: lowers the bell, then says what holds now, also if it was ordered meanwhile.
    pub(crate) fn settle(&self, lower: impl FnOnce()) -> Order {
        lower();
        decode(self.word.fetch_or(0, Ordering::SeqCst))
    }
}

fn encode(order: Order) -> u32 {
    match order {
        Order::Run => RUN,
        Order::Pause(number) => number << KIND_BITS | PAUSE,
        Order::Stop => STOP,
    }
}

fn decode(word: u32) -> Order {
    match word & ((1 << KIND_BITS) - 1) {
        RUN => Order::Run,
        PAUSE => Order::Pause(word >> KIND_BITS),
        _ => Order::Stop,
    }
}

const KIND_BITS: u32 = 2;
const RUN: u32 = 0;
const PAUSE: u32 = 1;
const STOP: u32 = 2;
