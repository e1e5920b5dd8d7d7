# HFAN with MiT-B1 (small); the other backbones override type and channels.
norm_cfg = dict(type="SyncBN", requires_grad=True)
find_unused_parameters = True  # conv_seg is in every official state dict and never used
model = dict(
    type="TwoStreamSegmentor",
    pretrained="pretrained/mit_b1.pth",
    backbone=dict(type="TwoStream", ori_type="mit_b1"),
    decode_head=dict(
        type="HFANHead",
        in_channels=[64, 128, 320, 512],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
        select_method="hfan",  # im, fw, base, fam, fat: what is decoded of frame and flow
        dropout_ratio=0.1,
        num_classes=2,
        norm_cfg=norm_cfg,
        align_corners=False,
        decoder_params=dict(embed_dim=256),
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
