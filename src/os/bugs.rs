//! Bugs that tests switch on, to prove that they are detected. Outside tests `planted` is constantly `false`.

/// A bug that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The last block is written again to the place that has its durable records.
    DurableBlockRewritten,
    /// The last block is not read from the spare block.
    SpareIgnored,
    /// The name of a new segment is not made durable.
    DirectoryNotSynced,
    /// A record with a wrong checksum is accepted, such as a torn one at the end.
    ChecksumIgnored,
    /// A record of another segment is accepted, such as one left in a reused block.
    OtherSegmentAccepted,
    /// An event is acknowledged before it is on the disk.
    AnswerBeforeWrite,
    /// Where a lane ends is not written down when it is closed after a failed write.
    EndNotWritten,
    /// A COMMIT whose answer was lost is taken for one that took effect.
    UnknownOutcomeBelieved,
    /// Dead letters are not written before the checkpoint passes them.
    LettersSkipped,
    /// The part of a batch that is stored is stored again.
    StoredPartRepeated,
    /// A batch is stored although events before it are missing.
    MissingSkipped,
    /// Reading back begins one event after the checkpoint.
    RecoveryBeginsLate,
    /// Events that are only on disk are not handed over.
    SpanDropped,
    /// The label of a lane is not read.
    LabelIgnored,
    /// Another database that answers is accepted.
    OtherDatabaseAccepted,
    /// Segments are removed before their events are stored.
    UnstoredRemoved,
    /// A lane that has an owner is taken over.
    LockIgnored,
    /// The copy of a checkpoint is not looked at.
    CopyIgnored,
    /// A write that failed is taken for one that succeeded.
    FailedWriteIgnored,
    /// A restore that one lane has seen is not passed on to the others.
    RestoreNotPassedOn,
    /// A writer without new events does not ask whether its checkpoints are still there.
    ProbeAsksForNothing,
    /// Each copy of a lane that gets another key gets one that no other copy has.
    KeyOfItsOwn,
    /// A lane stays at a key that a restored database lacks.
    LostKeyKept,
    /// A checkpoint that is not ahead is not asked whose events it counts.
    BehindBelieved,
    /// A decision about a held lane is applied although the database went back since.
    OldDecisionApplied,
    /// A decision that is void leaves the lane held for the same events, though the database lacks events before them.
    VoidedTooShort,
    /// A lane without a stored event is not labelled with its database.
    LabelLate,
    /// A checkpoint is believed although its copy does not belong to it.
    AlteredCopyBelieved,
    /// A checkpoint whose copy does not belong to it is believed where the journal has noted the same position.
    NoteBelieved,
    /// The notes of a lane are removed with its segments, in any order.
    NotesRemovedFirst,
    /// Letters that another process has written are believed before they are durable.
    LettersNotSynced,
    /// A replay of letters does not note that they are not to be stored from their old lanes.
    ReplayedNotNoted,
    /// The lanes of a replay are published before their letters are out of the file.
    ReplayedTooEarly,
    /// With `--ack stored` an event is answered as soon as it is on the disk.
    StoredAnsweredEarly,
    /// Events that became letters are not counted.
    LettersNotCounted,
    /// With `--ack stored` nobody tells a shard which events became letters.
    RefusedNotTold,
    /// A shard whose disk has failed takes no events any more, also when the disk is mended.
    FailedForEver,
    /// A letter that is replayed has another time than its event.
    LetterTimeLost,
    /// A checkpoint that counts the events of a machine with the same lane is taken for the lane's own.
    FingerprintIgnored,
    /// A lane that its writer has no room for stays locked.
    LaneOfNobody,
    /// An event that is read back from the journal has no id.
    IdNotReadBack,
    /// Events that made no row are counted as stored as well.
    DuplicateStored,
    /// Half of a request is taken where the group has no room for all of it.
    HalfOfRequestTaken,
    /// A request is written in two groups.
    RequestInTwoGroups,
    /// A request is written in two groups, and what is collected while one is written is answered when that is durable.
    FirstGroupAnswered,
}

/// Whether the bug is switched on in this thread.
#[cfg(not(test))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub(crate) use planting::{plant, planted};

#[cfg(test)]
mod planting {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    pub(crate) fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}
