//! Messages as the bytes they are, for the library that frames them: it is built once, and not once for each method. What
//! is in them is read and written at either end ([`super::Method`]).

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The codec of calls that have one message each way.
#[derive(Default)]
pub struct OneMessage {
    is_read: bool,
}

impl Codec for OneMessage {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl Encoder for OneMessage {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&message);
        Ok(())
    }
}

impl Decoder for OneMessage {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        if self.is_read {
            return Err(Status::invalid_argument("one message is expected"));
        }
        self.is_read = true;
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
