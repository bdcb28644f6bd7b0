//! From probes to packets, one after the other: nothing but names and tracks is kept.

use std::io::{self, Write};

use prost::Message;
use sim_kernel::{Arguments, Flow, Name, Probe, Sink, Time, Track, TrackInfo, TrackKind};

use super::proto::{
    COUNTER, CounterDescriptor, DebugAnnotation, INSTANT, InternedData, InternedName, NEEDS_STATE,
    ProcessDescriptor, SLICE_BEGIN, SLICE_END, STATE_CLEARED, TracePacket, TrackDescriptor, TrackEvent,
};
use super::{FOOTER, FS_PER_NS, HEADER, PACKET_TAG, SEQUENCE, SLICES};

/// Unique number of the track header and footer stand on.
const OWN_TRACK: u64 = 1;

#[derive(Debug)]
struct Lane {
    uuid: u64,
    scale: f64,
}

/// Numbers of names already in the file.
#[derive(Debug, Default)]
struct Interned(Vec<bool>);

impl Interned {
    /// Whether the name of this number is used for the first time.
    fn first(&mut self, index: usize) -> bool {
        if self.0.len() <= index {
            self.0.resize(index + 1, false);
        }
        !std::mem::replace(&mut self.0[index], true)
    }
}

/// Writes a trace. The first failure of `out` is kept, reported by [`Writer::finish`], and ends all writing.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    failed: Option<io::Error>,
    names: Vec<String>,
    events: Interned,
    annotations: Interned,
    groups: Vec<(String, u64)>,
    lanes: Vec<Lane>,
    next_uuid: u64,
    last_ns: u64,
    slices: u64,
    packet: TracePacket,
    buffer: Vec<u8>,
}

fn nanoseconds(t: Time) -> u64 {
    t.get() / FS_PER_NS
}

impl<W: Write> Writer<W> {
    /// A trace that starts with these facts about the run.
    pub fn new(out: W, header: &[(&str, &str)]) -> Self {
        let mut w = Self {
            out,
            failed: None,
            names: Vec::new(),
            events: Interned::default(),
            annotations: Interned::default(),
            groups: Vec::new(),
            lanes: Vec::new(),
            next_uuid: OWN_TRACK + 1,
            last_ns: 0,
            slices: 0,
            packet: TracePacket { track_event: Some(TrackEvent::default()), ..TracePacket::default() },
            buffer: Vec::new(),
        };
        let own =
            TrackDescriptor { uuid: Some(OWN_TRACK), name: Some("presil".to_owned()), ..Default::default() };
        w.write(&TracePacket {
            trusted_packet_sequence_id: Some(SEQUENCE),
            sequence_flags: Some(STATE_CLEARED),
            track_descriptor: Some(own),
            ..TracePacket::default()
        });
        w.text(HEADER, 0, header);
        w
    }

    /// Writes the last packet with these facts, and hands the output back.
    ///
    /// # Errors
    /// The first failure of the output.
    pub fn finish(mut self, footer: &[(&str, &str)]) -> io::Result<W> {
        let slices = self.slices.to_string();
        let footer: Vec<_> = footer.iter().copied().chain([(SLICES, slices.as_str())]).collect();
        self.text(FOOTER, self.last_ns, &footer);
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.out.flush()?;
        Ok(self.out)
    }

    /// An instant with text, on the file's own track; its names have numbers no other name has.
    fn text(&mut self, name: &str, at: u64, facts: &[(&str, &str)]) {
        let base = 1u64 << 32 | if name == HEADER { 0 } else { 1 << 16 };
        let named = |i: u64, text: &str| InternedName { iid: Some(base + i), name: Some(text.to_owned()) };
        let annotations = facts.iter().zip(1..).map(|((_, value), i)| DebugAnnotation {
            name_iid: Some(base + i),
            string_value: Some((*value).to_owned()),
            ..DebugAnnotation::default()
        });
        let event = TrackEvent {
            r#type: Some(INSTANT),
            name_iid: Some(base),
            track_uuid: Some(OWN_TRACK),
            debug_annotations: annotations.collect(),
            ..TrackEvent::default()
        };
        let interned = InternedData {
            event_names: vec![named(0, name)],
            debug_annotation_names: facts.iter().zip(1..).map(|((key, _), i)| named(i, key)).collect(),
        };
        self.write(&TracePacket {
            timestamp: Some(at),
            trusted_packet_sequence_id: Some(SEQUENCE),
            sequence_flags: Some(NEEDS_STATE),
            track_event: Some(event),
            interned_data: Some(interned),
            ..TracePacket::default()
        });
    }

    fn write(&mut self, packet: &TracePacket) {
        if self.failed.is_some() {
            return;
        }
        self.buffer.clear();
        self.buffer.push(PACKET_TAG);
        // Growing a vector cannot run out of room.
        let encoded = packet.encode_length_delimited(&mut self.buffer).map_err(io::Error::other);
        if let Err(e) = encoded.and_then(|()| self.out.write_all(&self.buffer)) {
            self.failed = Some(e);
        }
    }

    /// One event, in the packet that is used for all of them.
    fn event(&mut self, track: Track, kind: i32, at: Time, name: Option<Name>, a: &Arguments, flow: Flow) {
        let at = nanoseconds(at);
        self.last_ns = self.last_ns.max(at);
        let uuid = self.lanes[track.index()].uuid;
        let mut packet = std::mem::take(&mut self.packet);
        let event = packet.track_event.get_or_insert_default();
        event.debug_annotations.clear();
        event.flow_ids.clear();
        event.terminating_flow_ids.clear();
        event.r#type = Some(kind);
        event.track_uuid = Some(uuid);
        event.name_iid = name.map(|n| n.index() as u64 + 1);
        event.double_counter_value = None;
        match flow {
            Flow::None => {}
            Flow::Through(id) => event.flow_ids.push(id),
            Flow::Ends(id) => event.terminating_flow_ids.push(id),
        }
        event.debug_annotations.extend(a.all().iter().map(|(n, value)| DebugAnnotation {
            name_iid: Some(n.index() as u64 + 1),
            uint_value: Some(*value),
            string_value: None,
        }));
        packet.timestamp = Some(at);
        packet.trusted_packet_sequence_id = Some(SEQUENCE);
        packet.sequence_flags = name.map(|_| NEEDS_STATE);
        packet.interned_data = self.intern(name, a);
        self.write(&packet);
        self.packet = packet;
    }

    /// What of an event's names is not yet in the file.
    fn intern(&mut self, name: Option<Name>, a: &Arguments) -> Option<InternedData> {
        let mut new: Option<InternedData> = None;
        let entry = |names: &[String], n: Name| InternedName {
            iid: Some(n.index() as u64 + 1),
            name: Some(names[n.index()].clone()),
        };
        if let Some(n) = name.filter(|n| self.events.first(n.index())) {
            new.get_or_insert_default().event_names.push(entry(&self.names, n));
        }
        for (n, _) in a.all() {
            if self.annotations.first(n.index()) {
                new.get_or_insert_default().debug_annotation_names.push(entry(&self.names, *n));
            }
        }
        new
    }

    fn uuid(&mut self) -> u64 {
        self.next_uuid += 1;
        self.next_uuid - 1
    }

    fn describe(&mut self, track: TrackDescriptor) {
        self.write(&TracePacket {
            trusted_packet_sequence_id: Some(SEQUENCE),
            track_descriptor: Some(track),
            ..TracePacket::default()
        });
    }

    fn group(&mut self, name: &str) -> u64 {
        if let Some((_, uuid)) = self.groups.iter().find(|g| g.0 == name) {
            return *uuid;
        }
        let uuid = self.uuid();
        self.groups.push((name.to_owned(), uuid));
        let pid = i32::try_from(self.groups.len()).ok();
        let process = ProcessDescriptor { pid, process_name: Some(name.to_owned()) };
        self.describe(TrackDescriptor {
            uuid: Some(uuid),
            process: Some(process),
            ..TrackDescriptor::default()
        });
        uuid
    }
}

impl<W: Write> Sink for Writer<W> {
    fn track(&mut self, info: &TrackInfo) {
        let parent = self.group(&info.group);
        let uuid = self.uuid();
        let (counter, scale) = match info.kind {
            TrackKind::Spans => (None, 1.0),
            TrackKind::Counter { unit, decimals } => (
                Some(CounterDescriptor { unit_name: Some(unit.to_owned()) }),
                10f64.powi(decimals.cast_signed()),
            ),
        };
        self.lanes.push(Lane { uuid, scale });
        self.describe(TrackDescriptor {
            uuid: Some(uuid),
            name: Some(info.name.clone()),
            parent_uuid: Some(parent),
            counter,
            ..TrackDescriptor::default()
        });
    }

    fn name(&mut self, text: &str) {
        self.names.push(text.to_owned());
    }

    fn emit(&mut self, probe: &Probe) {
        let none = Arguments::default();
        match probe {
            Probe::Span { track, name, start, end, flow, arguments } => {
                self.slices += 1;
                self.event(*track, SLICE_BEGIN, *start, Some(*name), arguments, *flow);
                self.event(*track, SLICE_END, *end, None, &none, Flow::None);
            }
            Probe::Instant { track, name, at, flow, arguments } => {
                self.event(*track, INSTANT, *at, Some(*name), arguments, *flow);
            }
            Probe::Counter { track, at, value } => {
                let at = nanoseconds(*at);
                self.last_ns = self.last_ns.max(at);
                let lane = &self.lanes[track.index()];
                let event = TrackEvent {
                    r#type: Some(COUNTER),
                    track_uuid: Some(lane.uuid),
                    double_counter_value: Some(*value as f64 / lane.scale),
                    ..TrackEvent::default()
                };
                self.write(&TracePacket {
                    timestamp: Some(at),
                    trusted_packet_sequence_id: Some(SEQUENCE),
                    track_event: Some(event),
                    ..TracePacket::default()
                });
            }
        }
    }
}
