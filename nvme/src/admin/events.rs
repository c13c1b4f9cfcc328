//! Asynchronous events (Base 2.0c, 5.2).
//!
//! The host leaves Asynchronous Event Requests with us; each completes with one event. A reported event masks its type until
//! the host has read the log page that the event names, so a flood of events is one.

use std::collections::VecDeque;

use nvme_spec::Status;
use nvme_spec::event::{AsyncEvent, AsyncEventType};
use nvme_spec::log::LogPageId;

/// Asynchronous Event Request Limit, 0's based (AERL).
pub(crate) const AERL_Z: u8 = 7;
/// Events that wait at most; there are fewer kinds than that.
const PENDING: usize = 16;

/// Requests and events that have not met; plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Events {
    /// Command identifiers of requests, oldest first.
    requests: VecDeque<u16>,
    pending: VecDeque<AsyncEvent>,
    /// Types already reported, and the page whose reading unmasks them.
    masked: Vec<(AsyncEventType, LogPageId)>,
}

impl Events {
    /// Takes a request.
    pub(crate) fn request(&mut self, cid: u16) -> Result<(), Status> {
        if self.requests.len() > usize::from(AERL_Z) {
            return Err(Status::AER_LIMIT_EXCEEDED.with_dnr(true));
        }
        self.requests.push_back(cid);
        Ok(())
    }

    /// Whether `cid` is the identifier of a request.
    pub(crate) fn holds(&self, cid: u16) -> bool {
        self.requests.contains(&cid)
    }

    /// Takes the request `cid` back; whether there was one.
    pub(crate) fn abort(&mut self, cid: u16) -> bool {
        let place = self.requests.iter().position(|request| *request == cid);
        place.and_then(|at| self.requests.remove(at)).is_some()
    }

    /// Something happened. An event that already waits is not doubled.
    pub(crate) fn raise(&mut self, event: AsyncEvent) {
        if self.pending.len() < PENDING && !self.pending.contains(&event) {
            self.pending.push_back(event);
        }
    }

    fn is_masked(&self, event: &AsyncEvent) -> bool {
        let event_type = event.event_type();
        self.masked.iter().any(|(masked, _)| *masked == event_type)
    }

    /// Whether an event can be reported.
    pub(crate) fn is_due(&self) -> bool {
        !self.requests.is_empty() && self.pending.iter().any(|event| !self.is_masked(event))
    }

    /// The next event to report and the request that it completes.
    pub(crate) fn next(&mut self) -> Option<(u16, AsyncEvent)> {
        let at = self
            .pending
            .iter()
            .position(|event| !self.is_masked(event))?;
        let cid = self.requests.pop_front()?;
        let event = self.pending.remove(at)?;
        self.masked.push((event.event_type(), event.lid()));
        Some((cid, event))
    }

    /// The host has read page `lid` without retaining its event: what the page tells need not be reported any more.
    pub(crate) fn acknowledge(&mut self, lid: LogPageId) {
        self.pending.retain(|event| event.lid() != lid);
        self.masked.retain(|(_, page)| *page != lid);
    }
}

#[cfg(test)]
mod tests {
    use nvme_spec::event::{ErrorEvent, HealthEvent, NoticeEvent};

    use super::*;

    fn notice() -> AsyncEvent {
        AsyncEvent::notice(
            NoticeEvent::NAMESPACE_ATTRIBUTE_CHANGED,
            LogPageId::CHANGED_NAMESPACE_LIST,
        )
    }

    #[test]
    fn an_event_waits_for_a_request_and_a_request_for_an_event() {
        let mut events = Events::default();
        events.raise(notice());
        assert_eq!(events.next(), None);
        events.request(7).unwrap();
        assert!(events.is_due());
        assert_eq!(events.next(), Some((7, notice())));
        events.request(8).unwrap();
        assert_eq!(events.next(), None);
        events.raise(AsyncEvent::error(ErrorEvent::INVALID_DOORBELL_VALUE));
        assert_eq!(events.next().unwrap().0, 8);
    }

    #[test]
    fn a_reported_type_is_masked_until_its_page_is_read() {
        let mut events = Events::default();
        (0..4).for_each(|cid| events.request(cid).unwrap());
        events.raise(notice());
        assert!(events.next().is_some());
        events.raise(notice());
        events.raise(notice());
        assert_eq!(events.next(), None, "masked");
        events.raise(AsyncEvent::health(HealthEvent::TEMPERATURE_THRESHOLD));
        assert_eq!(events.next().unwrap().0, 1, "another type passes");
        events.acknowledge(LogPageId::CHANGED_NAMESPACE_LIST);
        assert_eq!(events.next(), None, "the page told it already");
        events.raise(notice());
        assert_eq!(events.next(), Some((2, notice())));
    }

    #[test]
    fn requests_are_limited_and_can_be_aborted() {
        let mut events = Events::default();
        for cid in 0..=u16::from(AERL_Z) {
            events.request(cid).unwrap();
        }
        let status = events.request(100).unwrap_err();
        assert_eq!(status.code(), Status::AER_LIMIT_EXCEEDED);
        assert!(events.abort(3));
        assert!(!events.abort(3));
        assert!(!events.holds(3) && events.holds(4));
        events.request(100).unwrap();
    }

    #[test]
    fn pending_events_are_bounded() {
        let mut events = Events::default();
        for info in 0..200 {
            events.raise(AsyncEvent::new().with_info(info));
        }
        assert_eq!(events.pending.len(), PENDING);
    }
}
