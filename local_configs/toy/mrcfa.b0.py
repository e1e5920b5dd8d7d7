# MRCFA with MiT-B0 on the toy videos.
_base_ = ["./cffm.b0.py"]
model = dict(
    decode_head=dict(
        _delete_=True,
        type="MRCFAHead",
        in_channels=[32, 64, 160, 256],
        channels=128,
        num_classes=8,
        decoder_params=dict(embed_dim=256),
        num_clips=4,
        backbone="b0",
    )
)
