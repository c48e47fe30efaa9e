//! The stop word under every interleaving. The model checker's atomics take the place of `src/atomic.rs`.
//!
//! The kernel is modelled as KVM behaves: `KVM_RUN` returns at once if the bell (`immediate_exit`) is up, else it blocks until a signal
//! comes while it blocks; a signal that comes at any other time is lost. Loom reports a thread that never comes back as a deadlock.
#![allow(clippy::unwrap_used, reason = "a test")]

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};
}
#[path = "../src/stop_word.rs"]
mod stop_word;

use loom::sync::atomic::AtomicU8;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use atomic::Ordering;
use stop_word::{Order, StopWord};

#[derive(Default)]
struct InKernel {
    running: bool,
    signalled: bool,
    /// A signal came while the guest did not run, and was lost.
    lost: bool,
}

struct Model {
    word: StopWord,
    bell: AtomicU8,
    kernel: Mutex<InKernel>,
    /// Lost signals that the bell made good, over all interleavings: not part of the model.
    saved: std::sync::Arc<std::sync::atomic::AtomicU32>,
    wakes: Condvar,
    pauses: Mutex<u32>,
    paused: Condvar,
}

impl Model {
    /// Resumed once already, as a vCPU that runs is.
    fn new() -> Arc<Self> {
        Self::counting(Default::default())
    }

    fn counting(saved: std::sync::Arc<std::sync::atomic::AtomicU32>) -> Arc<Self> {
        let word = StopWord::new();
        word.resume();
        Arc::new(Self {
            word,
            bell: AtomicU8::new(0),
            kernel: Mutex::new(InKernel::default()),
            saved,
            wakes: Condvar::new(),
            pauses: Mutex::new(0),
            paused: Condvar::new(),
        })
    }

    /// A guest that never exits by itself.
    fn kvm_run(&self) {
        let mut kernel = self.kernel.lock().unwrap();
        if self.bell.load(Ordering::Acquire) != 0 {
            if kernel.lost {
                self.saved.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        *kernel = InKernel {
            running: true,
            ..InKernel::default()
        };
        while !kernel.signalled {
            kernel = self.wakes.wait(kernel).unwrap();
        }
        kernel.running = false;
    }

    fn demand(&self, order: Order) {
        let signal = || {
            let mut kernel = self.kernel.lock().unwrap();
            if kernel.running {
                kernel.signalled = true;
                self.wakes.notify_one();
            } else {
                kernel.lost = true;
            }
        };
        self.word
            .demand(order, || self.bell.store(1, Ordering::Release), signal);
    }

    /// The vCPU thread, as `src/seat.rs` runs it.
    fn thread(&self) {
        let mut order = self.word.order();
        loop {
            match order {
                Order::Stop => return,
                Order::Pause(number) => {
                    *self.pauses.lock().unwrap() = number;
                    self.paused.notify_one();
                    while self.word.order() == Order::Pause(number) {
                        thread::park();
                    }
                    order = self.word.settle(|| {
                        self.bell.swap(0, Ordering::SeqCst);
                    });
                    if order != Order::Run {
                        continue;
                    }
                }
                Order::Run => {}
            }
            self.kvm_run();
            order = self.word.order();
        }
    }

    fn wait_paused(&self, number: u32) {
        let mut pauses = self.pauses.lock().unwrap();
        while *pauses != number {
            pauses = self.paused.wait(pauses).unwrap();
        }
    }
}

/// All interleavings of up to three preemptions: with a pause and a resume there are too many to take all.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = Some(3);
    explorer.check(model);
}

#[test]
fn a_stop_always_ends_the_thread() {
    let saved = std::sync::Arc::<std::sync::atomic::AtomicU32>::default();
    let count = std::sync::Arc::clone(&saved);
    loom::model(move || {
        let model = Model::counting(std::sync::Arc::clone(&count));
        let vcpu = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.thread())
        };
        model.demand(Order::Stop);
        vcpu.join().unwrap();
    });
    // The model does contain the race that the bell is there for.
    assert!(saved.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_second_pause_before_the_thread_woke_from_the_first_is_answered() {
    explore(|| {
        let model = Model::new();
        let vcpu = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.thread())
        };
        model.demand(Order::Pause(1));
        model.wait_paused(1);
        model.word.resume();
        model.demand(Order::Pause(2));
        vcpu.thread().unpark();
        model.wait_paused(2);
        model.demand(Order::Stop);
        vcpu.thread().unpark();
        vcpu.join().unwrap();
    });
}

#[test]
fn a_stop_right_after_a_resume_is_not_lost() {
    explore(|| {
        let model = Model::new();
        let vcpu = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.thread())
        };
        model.demand(Order::Pause(1));
        model.wait_paused(1);
        model.word.resume();
        vcpu.thread().unpark();
        model.demand(Order::Stop);
        vcpu.thread().unpark();
        vcpu.join().unwrap();
    });
}

#[test]
fn a_stop_during_a_pause_ends_the_thread() {
    explore(|| {
        let model = Model::new();
        let vcpu = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.thread())
        };
        model.demand(Order::Pause(1));
        model.demand(Order::Stop);
        vcpu.thread().unpark();
        vcpu.join().unwrap();
    });
}
