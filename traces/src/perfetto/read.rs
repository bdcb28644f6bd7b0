//! From packets to events, one after the other: nothing but names, tracks and open slices is kept.

use std::collections::BTreeMap;
use std::io::{self, Read};

use prost::Message;
use thiserror::Error;

use super::proto::{COUNTER, INSTANT, SLICE_BEGIN, SLICE_END, TracePacket, TrackEvent};
use super::{FOOTER, HEADER, PACKET_TAG, SLICES};

/// Longest packet that is read; those that are written are far shorter.
const LONGEST: u64 = 1 << 20;
/// Most slices of one track that may be open at a time.
const DEEPEST: u64 = 64;

/// A file that is no trace, not all of one, or not one that presil wrote.
#[derive(Debug, Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("at byte {offset}: cannot be read: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// What stands there cannot be part of a trace.
    #[error("at byte {offset}: {problem}")]
    Damaged {
        /// Where the packet starts.
        offset: u64,
        /// What is wrong, what was expected.
        problem: String,
    },
    /// It is some other file.
    #[error("at byte {offset}: not a trace that presil wrote: {problem}")]
    Foreign {
        /// Where it first shows.
        offset: u64,
        /// What was expected.
        problem: String,
    },
    /// The end is missing.
    #[error("at byte {offset}: the trace ends here, before its last packet; was its run interrupted?")]
    Truncated {
        /// Size of the file.
        offset: u64,
    },
}

/// A track of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackEntry {
    /// Its name.
    pub name: String,
    /// Name of its group; empty for the file's own track.
    pub group: String,
    /// Unit, of counters.
    pub unit: Option<String>,
}

/// One event. Tracks are numbered in the order of the file, see [`Reader::tracks`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A track was declared: its number.
    Track(usize),
    /// A slice begins.
    Begin {
        /// Track.
        track: usize,
        /// Number of its name, see [`Reader::name`].
        name: u64,
        /// Nanoseconds from reset.
        at: u64,
    },
    /// The slice of a track that began last ends.
    End {
        /// Track.
        track: usize,
        /// Nanoseconds from reset.
        at: u64,
    },
    /// Something happened.
    Instant {
        /// Track.
        track: usize,
        /// Number of its name.
        name: u64,
        /// Nanoseconds from reset.
        at: u64,
    },
    /// A counter changed.
    Counter {
        /// Track.
        track: usize,
        /// Nanoseconds from reset.
        at: u64,
        /// New value.
        value: f64,
    },
}

/// Reads a trace.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: R,
    offset: u64,
    packet: u64,
    buffer: Vec<u8>,
    names: BTreeMap<u64, String>,
    annotations: BTreeMap<u64, String>,
    tracks: Vec<TrackEntry>,
    numbers: BTreeMap<u64, usize>,
    groups: BTreeMap<u64, String>,
    depth: Vec<u64>,
    arguments: Vec<(u64, u64)>,
    header: Option<BTreeMap<String, String>>,
    footer: Option<BTreeMap<String, String>>,
    slices: u64,
}

impl<R: Read> Reader<R> {
    /// A reader; nothing is read yet. The input should be buffered.
    pub const fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            packet: 0,
            buffer: Vec::new(),
            names: BTreeMap::new(),
            annotations: BTreeMap::new(),
            tracks: Vec::new(),
            numbers: BTreeMap::new(),
            groups: BTreeMap::new(),
            depth: Vec::new(),
            arguments: Vec::new(),
            header: None,
            footer: None,
            slices: 0,
        }
    }

    /// Tracks declared so far.
    #[must_use]
    pub fn tracks(&self) -> &[TrackEntry] {
        &self.tracks
    }

    /// Text of an event's name.
    #[must_use]
    pub fn name(&self, number: u64) -> &str {
        self.names.get(&number).map_or("", String::as_str)
    }

    /// Arguments of the last event that are numbers, by name.
    pub fn arguments(&self) -> impl Iterator<Item = (&str, u64)> {
        self.arguments.iter().map(|(n, v)| (self.annotations.get(n).map_or("", String::as_str), *v))
    }

    /// Facts about the run, from the first event.
    #[must_use]
    pub const fn header(&self) -> Option<&BTreeMap<String, String>> {
        self.header.as_ref()
    }

    /// Facts about the run, from the last event.
    #[must_use]
    pub const fn footer(&self) -> Option<&BTreeMap<String, String>> {
        self.footer.as_ref()
    }

    /// Where the packet of the last event starts.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.packet
    }

    fn damaged(&self, problem: impl Into<String>) -> TraceError {
        TraceError::Damaged { offset: self.packet, problem: problem.into() }
    }

    fn foreign(&self, problem: impl Into<String>) -> TraceError {
        TraceError::Foreign { offset: self.packet, problem: problem.into() }
    }

    fn bytes(&mut self, n: usize) -> Result<bool, TraceError> {
        self.buffer.resize(n, 0);
        let mut got = 0;
        while got < n {
            match self.input.read(&mut self.buffer[got..]) {
                Ok(0) => break,
                Ok(more) => got += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TraceError::Io { offset: self.offset, source }),
            }
        }
        self.offset += got as u64;
        Ok(got == n)
    }

    fn truncated(&self) -> TraceError {
        TraceError::Truncated { offset: self.offset }
    }

    /// The next event; nothing after the last one of a whole trace.
    ///
    /// # Errors
    /// If the file is no trace, not all of one, or not presil's.
    pub fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        loop {
            self.packet = self.offset;
            if !self.bytes(1)? {
                return match self.footer {
                    Some(_) => Ok(None),
                    None if self.offset == 0 => Err(self.foreign("it is empty")),
                    None => Err(self.truncated()),
                };
            }
            let tag = self.buffer[0];
            if tag != PACKET_TAG {
                let problem = format!("a trace packet begins with byte {PACKET_TAG:#04x}, found {tag:#04x}");
                return Err(if self.header.is_none() {
                    self.foreign(problem)
                } else {
                    self.damaged(problem)
                });
            }
            if self.footer.is_some() {
                return Err(self.damaged("there are packets after the last one"));
            }
            let length = self.length()?;
            if !self.bytes(length)? {
                return Err(self.truncated());
            }
            let packet = TracePacket::decode(&self.buffer[..]).map_err(|e| {
                let problem = format!("the packet cannot be decoded: {e}");
                if self.header.is_none() { self.foreign(problem) } else { self.damaged(problem) }
            })?;
            if let Some(event) = self.take(packet)? {
                return Ok(Some(event));
            }
        }
    }

    fn length(&mut self) -> Result<usize, TraceError> {
        let mut length = 0u64;
        for shift in (0..35).step_by(7) {
            if !self.bytes(1)? {
                return Err(self.truncated());
            }
            let byte = self.buffer[0];
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let fits = usize::try_from(length).ok().filter(|_| length <= LONGEST);
                return fits.ok_or_else(|| {
                    self.damaged(format!("a packet of {length} bytes, at most {LONGEST} expected"))
                });
            }
        }
        Err(self.damaged("a packet's length of more than five bytes"))
    }

    fn take(&mut self, packet: TracePacket) -> Result<Option<Event>, TraceError> {
        if let Some(new) = packet.interned_data {
            let entries = |v: Vec<super::proto::InternedName>| {
                v.into_iter().map(|e| (e.iid.unwrap_or_default(), e.name.unwrap_or_default()))
            };
            self.names.extend(entries(new.event_names));
            self.annotations.extend(entries(new.debug_annotation_names));
        }
        if let Some(t) = packet.track_descriptor {
            return self.declare(t);
        }
        let Some(event) = packet.track_event else { return Ok(None) };
        let at = packet.timestamp.ok_or_else(|| self.damaged("an event without a timestamp"))?;
        self.event(at, &event)
    }

    fn declare(&mut self, t: super::proto::TrackDescriptor) -> Result<Option<Event>, TraceError> {
        let uuid = t.uuid.ok_or_else(|| self.damaged("a track without a number"))?;
        if let Some(process) = t.process {
            self.groups.insert(uuid, process.process_name.unwrap_or_default());
            return Ok(None);
        }
        let group =
            match t.parent_uuid {
                Some(parent) => self.groups.get(&parent).cloned().ok_or_else(|| {
                    self.damaged(format!("a track of group {parent}, which was not declared"))
                })?,
                None => String::new(),
            };
        let number = self.tracks.len();
        if self.numbers.insert(uuid, number).is_some() {
            return Err(self.damaged(format!("track {uuid} is declared twice")));
        }
        let unit = t.counter.map(|c| c.unit_name.unwrap_or_default());
        self.tracks.push(TrackEntry { name: t.name.unwrap_or_default(), group, unit });
        self.depth.push(0);
        Ok(Some(Event::Track(number)))
    }

    fn event(&mut self, at: u64, e: &TrackEvent) -> Result<Option<Event>, TraceError> {
        let named = e.name_iid.and_then(|n| self.names.get(&n)).map(String::as_str);
        if self.header.is_none() && named != Some(HEADER) {
            return Err(self.foreign(format!("the first event must be `{HEADER}`")));
        }
        if named == Some(HEADER) {
            self.header = Some(self.facts(e));
            return Ok(None);
        }
        if named == Some(FOOTER) {
            return self.end(e);
        }
        let uuid = e.track_uuid.unwrap_or_default();
        let track = self.numbers.get(&uuid).copied();
        let track =
            track.ok_or_else(|| self.damaged(format!("an event on track {uuid}, which was not declared")))?;
        if (e.r#type == Some(COUNTER)) != self.tracks[track].unit.is_some() {
            return Err(self
                .damaged(format!("a value on track {}, or a slice on a counter", self.tracks[track].name)));
        }
        self.arguments.clear();
        for a in &e.debug_annotations {
            let name = a.name_iid.unwrap_or_default();
            if !self.annotations.contains_key(&name) {
                return Err(self.damaged(format!("argument name {name} was not declared")));
            }
            self.arguments.extend(a.uint_value.map(|v| (name, v)));
        }
        let name = || {
            let n = e.name_iid.unwrap_or_default();
            if named.is_some() {
                Ok(n)
            } else {
                Err(self.damaged(format!("event name {n} was not declared")))
            }
        };
        Ok(Some(match e.r#type {
            Some(SLICE_BEGIN) => {
                let name = name()?;
                self.depth[track] += 1;
                self.slices += 1;
                if self.depth[track] > DEEPEST {
                    return Err(self.damaged(format!("more than {DEEPEST} open slices on one track")));
                }
                Event::Begin { track, name, at }
            }
            Some(SLICE_END) => {
                let open = self.depth[track].checked_sub(1);
                self.depth[track] = open.ok_or_else(|| self.damaged("a slice ends that did not begin"))?;
                Event::End { track, at }
            }
            Some(INSTANT) => Event::Instant { track, name: name()?, at },
            Some(COUNTER) => {
                let value = e.double_counter_value.filter(|v| v.is_finite());
                Event::Counter {
                    track,
                    at,
                    value: value.ok_or_else(|| self.damaged("a counter without a value"))?,
                }
            }
            other => return Err(self.damaged(format!("event type {other:?} is none that presil writes"))),
        }))
    }

    fn facts(&self, e: &TrackEvent) -> BTreeMap<String, String> {
        let key = |iid: Option<u64>| self.annotations.get(&iid.unwrap_or_default()).cloned();
        e.debug_annotations.iter().filter_map(|a| Some((key(a.name_iid)?, a.string_value.clone()?))).collect()
    }

    fn end(&mut self, e: &TrackEvent) -> Result<Option<Event>, TraceError> {
        let footer = self.facts(e);
        if let Some(open) = self.depth.iter().position(|d| *d > 0) {
            let name = &self.tracks[open].name;
            return Err(self.damaged(format!("the trace ends, but a slice of track {name} does not")));
        }
        if footer.get(SLICES) != Some(&self.slices.to_string()) {
            let said = footer.get(SLICES).map_or("an unknown number of", String::as_str);
            return Err(self.damaged(format!("{said} slices were written, {} were found", self.slices)));
        }
        self.footer = Some(footer);
        Ok(None)
    }
}
