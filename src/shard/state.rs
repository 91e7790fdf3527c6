//! What the tasks of a shard share.

use std::cell::{Cell, RefCell};

use super::deadlines::{Deadlines, Hurry};
use super::input::Inputs;
use super::service::EventService;
use crate::os::io_driver::IoDriver;

/// What connections of a shard share. Lives on one thread.
#[derive(Debug)]
pub struct Shard {
    /// What requests are answered with.
    pub service: RefCell<EventService>,
    /// What its event loop waits with.
    pub driver: IoDriver,
    /// Memory for what connections read, where its loop waits on the ring.
    pub inputs: Inputs,
    /// Scratch: answers of the present turn, not yet sent.
    pub out: RefCell<Vec<u8>>,
    /// Scratch: the present name, unescaped.
    pub decoded: RefCell<Vec<u8>>,
    /// Buffers for answers that wait for their promise to be kept.
    spare_outs: RefCell<Vec<Vec<u8>>>,
    /// All open connections and how long they may take.
    pub deadlines: RefCell<Deadlines>,
    /// Which connections end early because the shard drains.
    pub hurry: Cell<Hurry>,
}

impl Shard {
    /// Without any connection.
    pub fn new(service: EventService, driver: IoDriver) -> Self {
        Self {
            service: RefCell::new(service),
            driver,
            inputs: Inputs::default(),
            out: RefCell::default(),
            decoded: RefCell::default(),
            spare_outs: RefCell::default(),
            deadlines: RefCell::default(),
            hurry: Cell::new(Hurry::No),
        }
    }

    /// Takes the answers of this turn out of the scratch, to be sent later.
    pub fn take_answers(&self) -> Vec<u8> {
        let spare = self.spare_outs.borrow_mut().pop().unwrap_or_default();
        std::mem::replace(&mut self.out.borrow_mut(), spare)
    }

    /// Takes the buffer back when they were sent.
    pub fn give_back(&self, mut answers: Vec<u8>) {
        answers.clear();
        self.spare_outs.borrow_mut().push(answers);
    }
}
