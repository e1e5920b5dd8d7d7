# Per-frame SegFormer with the settings that all heads on VSPW share; configs override what differs.
norm_cfg = dict(type="SyncBN", requires_grad=True)
find_unused_parameters = True  # conv_seg is in every official state dict and never used
model = dict(
    type="FrameSegmentor",
    pretrained=None,
    backbone=dict(type="mit_b1"),
    decode_head=dict(
        type="SegFormerHead",
        in_channels=[64, 128, 320, 512],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
        dropout_ratio=0.1,
        num_classes=124,
        norm_cfg=norm_cfg,
        align_corners=False,
        decoder_params=dict(embed_dim=256),
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
