//! A subscriber of `tracing` that writes down every span and every event of this thread, whatever their level.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Event, Metadata, Subscriber};

/// What was written down. Clones share everything.
#[derive(Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    spans: Vec<Span>,
    /// Those that are entered.
    stack: Vec<usize>,
    events: Vec<Span>,
    text: String,
}

/// A span, or an event, which is never closed.
#[derive(Clone)]
pub(crate) struct Span {
    pub(crate) metadata: &'static Metadata<'static>,
    pub(crate) parent: Option<usize>,
    pub(crate) fields: BTreeMap<&'static str, String>,
    handles: usize,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name(), self.fields)
    }
}

impl Span {
    pub(crate) fn name(&self) -> &'static str {
        self.metadata.name()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.handles == 0
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

impl Spans {
    /// Writes down what happens on this thread for as long as the guard lives.
    pub(crate) fn listen() -> (Self, DefaultGuard) {
        let spans = Self::default();
        let guard = set_default(spans.clone());
        (spans, guard)
    }

    /// The spans of this library, in the order in which they began.
    pub(crate) fn ours(&self) -> Vec<Span> {
        let mut spans = self.state().spans.clone();
        spans.retain(|span| span.metadata.target() == "sockeye");
        spans
    }

    /// The span of this library that began last.
    pub(crate) fn last(&self) -> Span {
        self.ours().pop().expect("a span")
    }

    /// The events of this library.
    pub(crate) fn events(&self) -> Vec<Span> {
        let mut events = self.state().events.clone();
        events.retain(|event| event.metadata.target() == "sockeye");
        events
    }

    /// Spans that are inside one of this library's, or are one, and are open.
    pub(crate) fn open(&self) -> Vec<Span> {
        let state = self.state();
        let is_inside = |span: &&Span| {
            let mut at = Some(*span);
            while let Some(span) = at {
                if span.metadata.target() == "sockeye" {
                    return true;
                }
                at = span.parent.map(|parent| &state.spans[parent]);
            }
            false
        };
        let open = state.spans.iter().filter(|span| !span.is_closed());
        open.filter(is_inside).cloned().collect()
    }

    /// Everything that was written down.
    #[cfg(feature = "gzip")]
    pub(crate) fn text(&self) -> String {
        self.state().text.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

/// Writes fields down, and all of them into a text as well.
struct Fields<'a> {
    fields: &'a mut BTreeMap<&'static str, String>,
    text: &'a mut String,
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        self.text.push_str(&format!(" {}={value}", field.name()));
        self.fields.insert(field.name(), value);
    }
}

impl Spans {
    /// `add` visits the fields of `span`.
    fn note(text: &mut String, span: &mut Span, add: impl FnOnce(&mut Fields<'_>)) {
        text.push_str(&format!("{} {}:", span.metadata.target(), span.name()));
        add(&mut Fields {
            fields: &mut span.fields,
            text,
        });
        text.push('\n');
    }
}

impl State {
    fn parent(&self, explicit: Option<&Id>, is_contextual: bool) -> Option<usize> {
        match explicit {
            Some(id) => Some(place(id)),
            None if is_contextual => self.stack.last().copied(),
            None => None,
        }
    }
}

fn place(id: &Id) -> usize {
    usize::try_from(id.into_u64()).unwrap() - 1
}

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut state = self.state();
        let parent = state.parent(attributes.parent(), attributes.is_contextual());
        let mut span = Span {
            metadata: attributes.metadata(),
            parent,
            fields: BTreeMap::new(),
            handles: 1,
        };
        Self::note(&mut state.text, &mut span, |fields| {
            attributes.record(fields);
        });
        state.spans.push(span);
        Id::from_u64(state.spans.len() as u64)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let state = &mut *self.state();
        let span = &mut state.spans[place(id)];
        Self::note(&mut state.text, span, |fields| values.record(fields));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut state = self.state();
        let parent = state.parent(event.parent(), event.is_contextual());
        let mut noted = Span {
            metadata: event.metadata(),
            parent,
            fields: BTreeMap::new(),
            handles: 0,
        };
        Self::note(&mut state.text, &mut noted, |fields| event.record(fields));
        state.events.push(noted);
    }

    fn enter(&self, id: &Id) {
        self.state().stack.push(place(id));
    }

    fn exit(&self, id: &Id) {
        let mut state = self.state();
        let entered = state.stack.iter().rposition(|span| *span == place(id));
        if let Some(at) = entered {
            state.stack.remove(at);
        }
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.state().spans[place(id)].handles += 1;
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut state = self.state();
        let span = &mut state.spans[place(&id)];
        span.handles -= 1;
        span.handles == 0
    }

    fn current_span(&self) -> tracing_core::span::Current {
        let state = self.state();
        match state.stack.last() {
            Some(at) => {
                let id = Id::from_u64(*at as u64 + 1);
                tracing_core::span::Current::new(id, state.spans[*at].metadata)
            }
            None => tracing_core::span::Current::none(),
        }
    }
}
