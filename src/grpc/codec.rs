//! The messages of a call that has one: what comes after it is refused.

use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};

/// Another codec, for calls whose request is one message.
pub(super) struct OneMessage<C>(pub(super) C);

impl<C: Codec> Codec for OneMessage<C> {
    type Encode = C::Encode;
    type Decode = C::Decode;
    type Encoder = C::Encoder;
    type Decoder = Once<C::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Once { decoder: self.0.decoder(), is_read: false }
    }
}

/// Another decoder, once.
pub(super) struct Once<D> {
    decoder: D,
    is_read: bool,
}

impl<D: Decoder<Error = Status>> Decoder for Once<D> {
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<D::Item>, Status> {
        if self.is_read {
            return Err(Status::invalid_argument("one message is expected"));
        }
        self.is_read = true;
        self.decoder.decode(source)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.decoder.buffer_settings()
    }
}
