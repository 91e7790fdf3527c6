//! Turns the panics of a sink's driver, as over a malformed packet, into errors.

use super::classify::panic_fault;
use crate::event::Event;
use crate::event::batch::Batch;
use crate::event::database_id::DatabaseId;
use crate::event::position::LaneId;
use crate::event::rule::EventRule;
use crate::os::panics;
use crate::sink::sealed_copy::FoundCheckpoint;
use crate::sink::{Begin, Checkpoint, Fault, FoundRow, Inserted, Refused, Sink, SinkError, Step};

/// A sink whose panics are errors. After one the connection is replaced, as after any error of a connection.
#[derive(Debug)]
pub struct PanicGuard<S>(pub S);

impl<S: Sink> PanicGuard<S> {
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut S) -> Result<T, SinkError>,
        error: fn(Fault) -> SinkError,
    ) -> Result<T, SinkError> {
        let sink = &mut self.0;
        panics::catch(|| call(sink)).unwrap_or_else(|message| Err(error(panic_fault(&message))))
    }
}

impl<S: Sink> Sink for PanicGuard<S> {
    fn open(&mut self) -> Result<EventRule, SinkError> {
        self.call(Sink::open, SinkError::Reconnect)
    }

    fn database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        self.call(Sink::database, SinkError::Reconnect)
    }

    fn name_database(&mut self, id: DatabaseId) -> Result<DatabaseId, SinkError> {
        self.call(|sink| sink.name_database(id), SinkError::Reconnect)
    }

    fn restore_database_id(&mut self, id: DatabaseId) -> Result<(), SinkError> {
        self.call(|sink| sink.restore_database_id(id), SinkError::Reconnect)
    }

    fn reread_database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        self.call(Sink::reread_database, SinkError::Reconnect)
    }

    fn checkpoint(&mut self, lane: LaneId) -> Result<Option<Checkpoint>, SinkError> {
        self.call(|sink| sink.checkpoint(lane), SinkError::Reconnect)
    }

    fn look(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError> {
        self.call(|sink| sink.look(lane, begin), SinkError::Reconnect)
    }

    fn adopt(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError> {
        self.call(|sink| sink.adopt(lane, begin), SinkError::Reconnect)
    }

    fn insert(
        &mut self,
        batch: &Batch,
        from: usize,
        step: Step,
        refused: &mut Refused,
    ) -> Result<Inserted, SinkError> {
        let insert = |sink: &mut S| sink.insert(batch, from, step, refused);
        self.call(insert, SinkError::Reconnect)
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        self.call(Sink::commit, SinkError::OutcomeUnknown)
    }

    fn inserted_row(&self) -> Option<(usize, u64)> {
        // Nothing is asked of the driver.
        self.0.inserted_row()
    }

    fn is_row_of(&mut self, id: u64, event: Event<'_>) -> Result<bool, SinkError> {
        self.call(|sink| sink.is_row_of(id, event), SinkError::Reconnect)
    }

    fn has_row_after(&mut self, after: u64, event: Event<'_>) -> Result<FoundRow, SinkError> {
        self.call(
            |sink| sink.has_row_after(after, event),
            SinkError::Reconnect,
        )
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        self.call(Sink::probe, SinkError::Reconnect)
    }

    fn abandon(&mut self, fault: &SinkError) {
        let abandon = |sink: &mut S| {
            sink.abandon(fault);
            Ok(())
        };
        if let Err(fault) = self.call(abandon, SinkError::Reconnect) {
            log::debug!("{fault}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::UnixMillis;
    use crate::event::batch::BatchEvents;
    use crate::event::position::Position;
    use crate::sink::{Epoch, FaultKind};

    /// In the order in which they are called.
    const CALLS: [&str; 12] = [
        "open",
        "database",
        "name_database",
        "restore_database_id",
        "reread_database",
        "checkpoint",
        "look",
        "adopt",
        "insert",
        "is_row_of",
        "has_row_after",
        "probe",
    ];

    struct Panics;

    impl Sink for Panics {
        fn open(&mut self) -> Result<EventRule, SinkError> {
            panic!("open")
        }

        fn database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
            panic!("database")
        }

        fn name_database(&mut self, _: DatabaseId) -> Result<DatabaseId, SinkError> {
            panic!("name_database")
        }

        fn restore_database_id(&mut self, _: DatabaseId) -> Result<(), SinkError> {
            panic!("restore_database_id")
        }

        fn reread_database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
            panic!("reread_database")
        }

        fn checkpoint(&mut self, _: LaneId) -> Result<Option<Checkpoint>, SinkError> {
            panic!("checkpoint")
        }

        fn look(&mut self, _: LaneId, _: Begin) -> Result<FoundCheckpoint, SinkError> {
            panic!("look")
        }

        fn adopt(&mut self, _: LaneId, _: Begin) -> Result<FoundCheckpoint, SinkError> {
            panic!("adopt")
        }

        fn insert(
            &mut self,
            _: &Batch,
            _: usize,
            _: Step,
            _: &mut Refused,
        ) -> Result<Inserted, SinkError> {
            panic!("insert")
        }

        fn commit(&mut self) -> Result<(), SinkError> {
            panic!("commit")
        }

        fn inserted_row(&self) -> Option<(usize, u64)> {
            None
        }

        fn is_row_of(&mut self, _: u64, _: Event<'_>) -> Result<bool, SinkError> {
            panic!("is_row_of")
        }

        fn has_row_after(&mut self, _: u64, _: Event<'_>) -> Result<FoundRow, SinkError> {
            panic!("has_row_after")
        }

        fn probe(&mut self) -> Result<(), SinkError> {
            panic!("probe")
        }

        fn abandon(&mut self, _: &SinkError) {
            panic!("abandon")
        }
    }

    #[test]
    fn each_call_ends_with_an_error() {
        let mut sink = PanicGuard(Panics);
        let lane = LaneId::random().unwrap();
        let step = Step {
            lane,
            epoch: Epoch(1),
            old: Position::START,
            new: Position(1),
            last: None,
        };
        let batch = Batch::new(BatchEvents::new(10).unwrap());
        let inserted = sink.insert(&batch, 0, step, &mut Refused::new());
        let event = Event {
            name: "a",
            value: 1,
            received_at: UnixMillis(0),
            id: None,
        };
        let faults = [
            sink.open().unwrap_err(),
            sink.database().unwrap_err(),
            sink.name_database(DatabaseId::from_halves(1, 2))
                .unwrap_err(),
            sink.restore_database_id(DatabaseId::from_halves(1, 2))
                .unwrap_err(),
            sink.reread_database().unwrap_err(),
            sink.checkpoint(lane).unwrap_err(),
            sink.look(lane, Position::START.into()).unwrap_err(),
            sink.adopt(lane, Position::START.into()).unwrap_err(),
            inserted.unwrap_err(),
            sink.is_row_of(1, event).unwrap_err(),
            sink.has_row_after(1, event).unwrap_err(),
            sink.probe().unwrap_err(),
        ];
        for (fault, call) in faults.iter().zip(CALLS) {
            assert!(matches!(fault, SinkError::Reconnect(_)), "{fault:?}");
            assert_eq!(fault.fault().kind, FaultKind::Driver);
            assert!(fault.to_string().contains(call), "{fault}");
        }
        let unknown = sink.commit().unwrap_err();
        assert!(matches!(unknown, SinkError::OutcomeUnknown(_)));
        sink.abandon(&unknown);
    }
}
