//! Whether a log is as it was written: one look at every entry in its order, then a second at those that did not fit.
use crate::domain::audit::{Hash, Seal, chain};

/// Faults that are told, at most.
pub const MAX_FAULTS: usize = 100;
/// Entries that did not fit for which another place is looked for; any more count as edited.
const MAX_MATCHED: usize = 32;

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// It, or its hash, is not what was written.
    Edited,
    /// It is gone.
    Missing,
    /// It was written at another place.
    Moved,
}

impl FaultKind {
    /// For people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            FaultKind::Edited => "edited",
            FaultKind::Missing => "missing",
            FaultKind::Moved => "moved",
        }
    }
}

/// Something wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Place of the entry; 0: the log's own note of how far it goes.
    pub number: i64,
    /// What.
    pub kind: FaultKind,
}

/// What the look at a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries that were read.
    pub events: i64,
    /// What is wrong, in the order of places, at most [`MAX_FAULTS`].
    pub faults: Vec<Fault>,
    /// Place of the last entry.
    pub last_number: i64,
    /// Its hash.
    pub last_hash: Hash,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.faults.is_empty()
    }
}

/// What the database notes about a log besides its entries.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Place and hash of the last entry, kept up by whoever adds one.
    pub head: Option<(i64, Hash)>,
    /// How far the service vouches for the log.
    pub seal: Option<Seal>,
    /// Whether the seal is the service's own.
    pub signed: bool,
}

/// An entry that does not stand on the one before it.
struct Suspect {
    number: i64,
    hash: Hash,
    digest: Hash,
    /// Whether the entry before it is missing, so that it cannot be told.
    unproven: bool,
}

/// Takes the entries of a log in the order of their numbers. What it keeps does not grow with the log.
pub struct Verifier {
    notes: Notes,
    /// The place after the last entry that was in order.
    next: i64,
    /// The hash before it: as stored, and as it should be. None after a gap.
    before: Vec<Hash>,
    suspects: Vec<Suspect>,
    /// Places that a suspect may belong to, with the hashes that may stand before them.
    places: Vec<(i64, Vec<Hash>)>,
    report: Report,
}

impl Verifier {
    /// Before the first entry.
    pub fn new(notes: Notes) -> Verifier {
        let seal = notes.seal.clone().unwrap_or_default();
        let mut report = Report::default();
        (report.last_number, report.last_hash) = (seal.pruned_number, seal.pruned_hash.clone());
        let mut verifier = Verifier {
            next: seal.pruned_number + 1,
            before: vec![seal.pruned_hash],
            notes,
            suspects: Vec::new(),
            places: Vec::new(),
            report,
        };
        let Notes { head, seal, signed } = &verifier.notes;
        match (seal, head) {
            (Some(_), _) if !signed => verifier.fault(0, FaultKind::Edited),
            (None, Some(_)) => verifier.fault(0, FaultKind::Missing),
            (Some(seal), None) if seal.number > 0 => verifier.fault(0, FaultKind::Missing),
            _ => {}
        }
        verifier
    }

    /// Takes the next entry.
    pub fn entry(&mut self, number: i64, hash: Hash, digest: Hash) {
        self.report.events += 1;
        let last = self.last();
        if number < self.next || (number > self.next && number > last) {
            self.suspect(Suspect { number, hash, digest, unproven: false });
            return;
        }
        let gap = number > self.next;
        if gap {
            self.gap(number - 1);
        }
        let right: Vec<Hash> = self.before.iter().map(|before| chain(before, number, &digest)).collect();
        let fits = right.contains(&hash);
        let mut genuine = vec![hash.clone()];
        if !fits {
            self.places.push((number, self.before.clone()));
            self.suspect(Suspect { number, hash: hash.clone(), digest, unproven: gap });
            genuine.extend(right.into_iter().next());
        }
        self.compare(number, &genuine);
        (self.report.last_number, self.report.last_hash) = (number, hash);
        (self.next, self.before) = (number + 1, genuine);
    }

    /// After the last entry.
    pub fn finish(mut self) -> Report {
        let last = self.last();
        if self.next <= last {
            self.gap(last);
        }
        let head = self.notes.head.as_ref().map_or(0, |(number, _)| *number);
        if self.notes.head.is_some() && head < last.max(self.report.last_number) {
            self.fault(0, FaultKind::Edited);
        }
        self.judge();
        self.report.faults.sort_unstable();
        self.report.faults.dedup();
        self.report.faults.truncate(MAX_FAULTS);
        self.report
    }

    /// The last entry that there must be.
    fn last(&self) -> i64 {
        let head = self.notes.head.as_ref().map_or(0, |(number, _)| *number);
        head.max(self.notes.seal.as_ref().map_or(0, |seal| seal.number))
    }

    /// Compares an entry with what the head and the seal say of its place.
    fn compare(&mut self, number: i64, genuine: &[Hash]) {
        let head = self.notes.head.iter().map(|(number, hash)| (*number, hash));
        let seal = self.notes.seal.iter().map(|seal| (seal.number, &seal.hash));
        if head.chain(seal).any(|(place, hash)| place == number && !genuine.contains(hash)) {
            self.fault(number, FaultKind::Edited);
        }
    }

    /// Nothing from the next place up to `to`.
    fn gap(&mut self, to: i64) {
        self.places.push((self.next, std::mem::take(&mut self.before)));
        for number in (self.next..=to).take(MAX_FAULTS) {
            self.fault(number, FaultKind::Missing);
        }
    }

    fn suspect(&mut self, suspect: Suspect) {
        if self.suspects.len() < MAX_MATCHED {
            self.suspects.push(suspect);
        } else if !suspect.unproven {
            self.fault(suspect.number, FaultKind::Edited);
        }
    }

    fn fault(&mut self, number: i64, kind: FaultKind) {
        // Some are taken back later, when an entry that seemed missing is found elsewhere.
        if self.report.faults.len() < 2 * MAX_FAULTS {
            self.report.faults.push(Fault { number, kind });
        }
    }

    /// Says what became of each entry that did not fit: it was written elsewhere, or it does fit, because only what
    /// stood before it is elsewhere now, or it was edited.
    fn judge(&mut self) {
        let suspects = std::mem::take(&mut self.suspects);
        let missing = self.report.faults.iter().filter(|fault| fault.kind == FaultKind::Missing && fault.number > 0);
        let missing: Vec<_> = missing.take(MAX_MATCHED).map(|fault| (fault.number, Vec::new())).collect();
        self.places.truncate(2 * MAX_MATCHED);
        self.places.extend(missing);
        for suspect in &suspects {
            // The hash that this entry has at a place, after one that was there or that travelled with another entry.
            let stands = |place: i64, known: &[Hash], own: &[&Hash]| {
                let travelled = suspects.iter().map(|other| &other.hash);
                known.iter().chain(travelled).any(|before| own.contains(&&chain(before, place, &suspect.digest)))
            };
            let elsewhere = self.places.iter().find(|(place, known)| {
                let stayed = suspects.iter().find(|other| other.number == *place).map(|other| &other.hash);
                let own: Vec<&Hash> = std::iter::once(&suspect.hash).chain(stayed).collect();
                *place != suspect.number && stands(*place, known, &own)
            });
            if let Some(&(place, _)) = elsewhere {
                // Neither is it gone there, nor is what was here edited.
                let (gone, edited) = ((place, FaultKind::Missing), (suspect.number, FaultKind::Edited));
                self.report.faults.retain(|fault| ![gone, edited].contains(&(fault.number, fault.kind)));
                self.fault(suspect.number, FaultKind::Moved);
            } else if !suspect.unproven && !stands(suspect.number, &[], &[&suspect.hash]) {
                self.fault(suspect.number, FaultKind::Edited);
            }
        }
    }
}
