//! The way of a call to its origin: which proxy it passes and how, or the socket of the Unix domain that it takes.
//!
//! Decided anew for each URL of a call, so that a redirect to a URL that another proxy is for goes through that one (security
//! R5). What a call sets beats what its client sets. Pure.

use http::Method;

use super::{Call, Engine};
use crate::config::HttpVersions;
use crate::error::Result;
use crate::head::RequestHead;
use crate::pool::{Detour, Passage, Way};
use crate::url::Target;

/// The way of this call.
pub(super) fn of_call<'a>(
    engine: &'a Engine,
    call: &'a Call,
    versions: HttpVersions,
) -> Result<Way<'a>> {
    let own_unix = call.own(|own| own.unix.as_ref());
    let own_proxies = call.own(|own| own.proxies.as_deref());
    let unix = own_unix.or(engine.unix.as_ref());
    let proxies = own_proxies.or(engine.proxies.as_deref());
    let mut way = Way {
        versions,
        unix,
        proxy: None,
    };
    let Some(proxies) = proxies else {
        return Ok(way);
    };
    // A path is more than a proxy, unless the call itself has named the proxy and none of its own.
    if unix.is_some() && (own_unix.is_some() || own_proxies.is_none()) {
        return Ok(way);
    }
    way.proxy = proxies.choose(&call.head.target)?.map(|via| Detour {
        via,
        passage: passage(&call.head, versions, via.can_forward()),
    });
    if way.proxy.is_some() {
        way.unix = None;
    }
    Ok(way)
}

/// The way of connections that no call asks for yet.
pub(crate) fn of_target<'a>(
    engine: &'a Engine,
    target: &Target,
    versions: HttpVersions,
) -> Result<Way<'a>> {
    let unix = engine.unix.as_ref();
    let mut proxy = None;
    if let (None, Some(proxies)) = (unix, engine.proxies.as_deref()) {
        proxy = proxies.choose(target)?.map(|via| Detour {
            via,
            passage: usual_passage(target, versions, via.can_forward()),
        });
    }
    Ok(Way {
        versions,
        unix,
        proxy,
    })
}

/// A proxy that forwards a request takes fields of the connection, such as Upgrade, for its own (RFC 9110 section 7.6.1).
fn passage(head: &RequestHead, versions: HttpVersions, can_forward: bool) -> Passage {
    match head.upgrade().is_some() || head.method == Method::CONNECT {
        true => Passage::Tunnel,
        false => usual_passage(&head.target, versions, can_forward),
    }
}

fn usual_passage(target: &Target, versions: HttpVersions, can_forward: bool) -> Passage {
    match can_forward && !target.is_https() && versions == HttpVersions::Http1 {
        true => Passage::Forward,
        false => Passage::Tunnel,
    }
}
