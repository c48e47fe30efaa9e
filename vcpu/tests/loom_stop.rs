//! The stop word under every interleaving: `RUSTFLAGS="--cfg loom" cargo test -p pellucid-vcpu --test loom_stop`.
//!
//! The kernel is modelled as KVM behaves: `KVM_RUN` returns at once if the bell (`immediate_exit`) is up, else it blocks until a signal
//! comes while it blocks; a signal that comes at any other time is lost. Loom reports a thread that never comes back as a deadlock.
#![cfg(loom)]

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
}

struct Model {
    word: StopWord,
    bell: AtomicU8,
    kernel: Mutex<InKernel>,
    wakes: Condvar,
    pauses: Mutex<u32>,
    paused: Condvar,
}

impl Model {
    /// Resumed once already, as a vCPU that runs is.
    fn new() -> Arc<Self> {
        let word = StopWord::new();
        word.resume();
        Arc::new(Self {
            word,
            bell: AtomicU8::new(0),
            kernel: Mutex::new(InKernel::default()),
            wakes: Condvar::new(),
            pauses: Mutex::new(0),
            paused: Condvar::new(),
        })
    }

    /// A guest that never exits by itself.
    fn kvm_run(&self) {
        let mut kernel = self.kernel.lock().unwrap();
        if self.bell.load(Ordering::Acquire) != 0 {
            return;
        }
        *kernel = InKernel {
            running: true,
            signalled: false,
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
                Order::Pause => {
                    *self.pauses.lock().unwrap() += 1;
                    self.paused.notify_one();
                    while self.word.order() == Order::Pause {
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

    fn wait_paused(&self) {
        let mut pauses = self.pauses.lock().unwrap();
        while *pauses == 0 {
            pauses = self.paused.wait(pauses).unwrap();
        }
    }
}

#[test]
fn a_stop_always_ends_the_thread() {
    loom::model(|| {
        let model = Model::new();
        let vcpu = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.thread())
        };
        model.demand(Order::Stop);
        vcpu.join().unwrap();
    });
}

#[test]
fn a_stop_right_after_a_resume_is_not_lost() {
    loom::model(|| {
        let model = Model::new();
        let vcpu = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.thread())
        };
        model.demand(Order::Pause);
        model.wait_paused();
        model.word.resume();
        vcpu.thread().unpark();
        model.demand(Order::Stop);
        vcpu.thread().unpark();
        vcpu.join().unwrap();
    });
}

#[test]
fn a_stop_during_a_pause_ends_the_thread() {
    loom::model(|| {
        let model = Model::new();
        let vcpu = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.thread())
        };
        model.demand(Order::Pause);
        model.demand(Order::Stop);
        vcpu.thread().unpark();
        vcpu.join().unwrap();
    });
}

/// The check itself is checked: without the bell, a signal before the ioctl is lost and loom must see the hang.
#[test]
#[should_panic(expected = "deadlock")]
fn without_the_bell_the_model_finds_the_lost_signal() {
    loom::model(|| {
        let model = Model::new();
        let vcpu = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.thread())
        };
        let signal = || {
            let mut kernel = model.kernel.lock().unwrap();
            if kernel.running {
                kernel.signalled = true;
                model.wakes.notify_one();
            }
        };
        model.word.demand(Order::Stop, || {}, signal);
        vcpu.join().unwrap();
    });
}
