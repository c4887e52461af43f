// How the page looks: system fonts, one column, white space; letters keep their size at every width.

/// The page's style sheet.
enum PageStyle {
    static let sheet = [base, head, sections, bars, lines, tables, narrow, print].joined()

    private static let base = """
        :root{--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",Arial,sans-serif;
        --serif:Charter,"Iowan Old Style","Palatino Linotype","Source Serif 4",Georgia,"Liberation Serif",serif;
        --mono:ui-monospace,"SF Mono","Cascadia Mono",Menlo,Consolas,"Liberation Mono",monospace}
        *{box-sizing:border-box}
        html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
        body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 var(--sans);font-variant-numeric:tabular-nums}
        header,main,footer{max-width:1080px;margin:0 auto;padding:0 28px}
        h1,h2,h3,h4,p,ul,ol,dl,dd,figure{margin:0;padding:0}
        ul,ol{list-style:none}
        a{color:var(--run1)}
        code{font:13px/1.5 var(--mono);overflow-wrap:anywhere}
        :focus-visible{outline:3px solid var(--run1);outline-offset:2px}
        .unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
        .skip{position:absolute;left:-1000px}
        .skip:focus{left:8px;top:8px;padding:8px 14px;background:var(--card);z-index:2}
        .key{flex:none;display:inline-grid;place-items:center;width:18px;height:18px;border:1.5px solid var(--baseline);
        border-radius:50%;background:var(--card);color:var(--soft);font:700 11px/1 var(--sans);vertical-align:1px}
        .key.reference{background:var(--reference);border-color:var(--reference);color:var(--card)}
        .key.ceiling{border-style:dashed;border-color:var(--ceiling);border-radius:4px;color:var(--ink)}
        .run1{--own:var(--run1)}.run2{--own:var(--run2)}.run3{--own:var(--run3)}.run4{--own:var(--run4)}
        .key.run{background:var(--own);border-color:var(--own);color:var(--card)}
        .from{font-weight:600;color:var(--ink);white-space:nowrap}
        .from:before{content:"";display:inline-block;width:.56em;height:.56em;margin-right:.36em;border:.14em solid currentColor}
        .from.measured:before,.from.modelled:before{border-radius:50%}
        .from.measured:before,.from.counted:before{background:currentColor}
        .from.given:before{transform:rotate(45deg) scale(.85)}

        """

    private static let head = """
        .bar-top{display:flex;flex-wrap:wrap;gap:10px 16px;align-items:center;padding:18px 0 14px;border-bottom:1px solid var(--rule)}
        .brand{font:600 15px/1.2 var(--sans)}
        .brand i{display:inline-block;width:5px;margin-right:2px;vertical-align:-1px}
        .brand .hbm{height:7px}.brand .dram{height:12px}.brand .flash{height:17px;margin-right:9px}
        .notice{padding:3px 10px;border:1px solid var(--note-edge);border-radius:4px;background:var(--note);font:600 13px/1.4 var(--sans)}
        .themes{display:flex;margin:0 0 0 auto;padding:0;border:0;font-size:13px;color:var(--soft)}
        .themes label{margin-left:-1px;padding:3px 10px;border:1px solid var(--rule);cursor:pointer}
        .themes label:has(:checked){background:var(--context);color:var(--ink)}
        .themes label:has(:focus-visible){outline:3px solid var(--run1)}
        .themes input{position:absolute;opacity:0;width:1px;height:1px}
        h1{max-width:31em;margin:36px 0 16px;font:500 clamp(25px,1.15rem + 1.7vw,38px)/1.24 var(--serif);
        letter-spacing:-.008em;text-wrap:balance}
        .also{max-width:48em;margin:0 0 12px;font:500 19px/1.4 var(--serif)}
        .facts{max-width:80ch;margin:0 0 28px;color:var(--soft)}.facts b{color:var(--ink)}
        .figures{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:30px 38px;padding:26px 0 6px;border-top:2px solid var(--ink)}
        .figure h3{font:500 14px/1.35 var(--sans);color:var(--soft)}
        .number{display:flex;flex-wrap:wrap;gap:0 10px;align-items:baseline;margin:5px 0 9px;font:500 35px/1.12 var(--serif)}
        .number .run{color:var(--own)}.number .key{color:var(--card);vertical-align:7px;margin-right:5px}
        .number small{font:400 14px/1.2 var(--sans);color:var(--soft)}
        .number em{margin-left:auto;font:400 12.5px/1.2 var(--sans);color:var(--soft)}
        .figure p{display:flex;flex-wrap:wrap;gap:2px 14px;margin:10px 0 0;font-size:13.5px;color:var(--soft)}
        .figure p b{margin-left:6px;color:var(--ink);font-weight:600}
        .figure .gain{margin-left:auto;font-weight:600;color:var(--ink)}.figure .extra{flex-basis:100%}
        .bullet{position:relative;height:12px;margin:4px 0;background:var(--context)}
        .bullet+.bullet{height:7px}.bullet:has(+.bullet){height:7px}
        .bullet i{position:absolute;inset:0 auto 0 0;background:var(--own)}
        .bullet u,.bullet s{position:absolute;top:-4px;bottom:-4px;text-decoration:none}
        .bullet u{width:3px;margin-left:-1.5px;background:var(--reference);box-shadow:0 0 0 1.5px var(--paper)}
        .bullet s{margin-left:-1px;border-left:2px dashed var(--ceiling)}
        .cautions,.differences{margin:30px 0 0;padding:14px 20px 15px;border-left:4px solid var(--note-edge);background:var(--note);font-size:15px}
        .differences{border-color:var(--run1);background:var(--card)}.differences.unlike{border-color:var(--again)}
        .cautions h2,.differences h2,.keys h2,.contents h2,.list,h4{font:600 14px/1.45 var(--sans)}
        .cautions li{margin:3px 0 0 1.1em;list-style:disc}
        .breaks th{font-weight:700}
        .keys{display:grid;grid-template-columns:1.3fr 1fr;gap:20px 44px;margin:30px 0 0;font-size:14px}
        .keys h2{margin-bottom:8px}.systems{columns:2;column-gap:24px}
        .keys li{display:flex;gap:8px;align-items:baseline;margin:0 0 6px;break-inside:avoid}
        .contents{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:10px 38px;margin:26px 0 0;padding:20px 0 0;
        border-top:1px solid var(--rule);font-size:14px}
        .contents h2{margin-bottom:6px}.contents li{margin:0 0 3px}.contents a{text-decoration:none}.contents a:hover{text-decoration:underline}

        """

    private static let sections = """
        .part{margin:66px 0 0;padding:0 0 9px;border-bottom:2px solid var(--ink);font:600 14px/1.2 var(--sans);color:var(--soft)}
        section{padding:36px 0 16px;border-bottom:1px solid var(--rule)}
        section>h2{max-width:35em;margin:0 0 8px;font:500 clamp(21px,1rem + 1vw,27px)/1.32 var(--serif);letter-spacing:-.004em;text-wrap:pretty}
        .question{display:block;margin:0 0 7px;font:500 15px/1.4 var(--sans);letter-spacing:0;color:var(--soft)}
        .how{max-width:90ch;margin:0 0 24px;font-size:14px;color:var(--soft)}
        .remark{max-width:90ch;margin:0 0 14px;font-size:15px}
        .remark code{display:block;margin:6px 0 10px;padding:12px 16px;border:1px solid var(--rule);border-radius:5px;background:var(--card)}
        figure{margin:0 0 22px}
        figcaption{margin:0 0 11px;font-size:14px;color:var(--soft)}figcaption b,.legend span{color:var(--ink);font-weight:600}
        .pair{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:4px 46px}
        .legend{display:flex;flex-wrap:wrap;gap:4px 20px;margin:0 0 14px;font-size:13.5px}
        .legend li{display:flex;gap:7px;align-items:center}
        .swatch{flex:none;width:22px;height:13px}
        .rule{flex:none;width:26px;border-top:2px solid var(--baseline)}
        .rule.run{border-top:3.5px solid var(--own)}.rule.reference{border-top:2.5px solid var(--reference)}
        .rule.ceiling,.rule.dashes{border-top:2px dashed var(--ceiling)}.rule.there{border-top:1.5px dotted var(--ink)}
        .rule.run2{border-top-style:dashed}.rule.run3{border-top-style:dotted}.rule.run4{border-top-style:double}
        .checks{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:7px 44px;margin:0 0 24px;font-size:14px}
        .checks li{display:flex;gap:9px;align-items:baseline;min-width:0;overflow-wrap:anywhere}
        .checks b{flex:none;padding:2px 5px;border:1.5px solid;border-radius:3px;font:600 12px/1 var(--mono);color:var(--soft)}
        .checks .failed b{color:var(--on-again);background:var(--again)}
        .list{margin:0 0 6px}
        dl{columns:2;column-gap:44px;margin:0 0 24px;font-size:14px}
        dl div{display:flex;flex-wrap:wrap;gap:0 16px;justify-content:space-between;padding:5px 0;border-bottom:1px solid var(--rule);break-inside:avoid}
        dt{color:var(--soft)}dd{min-width:0;margin-left:auto;text-align:right;overflow-wrap:anywhere}
        dd code{display:block;color:var(--soft)}
        footer{padding-top:24px;padding-bottom:48px;font-size:13.5px;color:var(--soft);overflow-wrap:anywhere}

        """

    private static let bars: String = {
        let plain = Fill.allCases.filter { ![.again, .waiting, .ghost].contains($0) }
        let fills = plain.map { ".\($0.rawValue){background:var(--\($0.rawValue));color:var(--on-\($0.rawValue))}" }
            .joined()
        return fills + """
            .again{background:repeating-linear-gradient(135deg,var(--again) 0 6px,var(--hatch) 6px 9px);color:var(--on-again)}
            .waiting{background:radial-gradient(circle at 2px 2px,var(--on-waiting) .8px,#0000 1.2px) 0 0/6px 6px,var(--waiting);color:var(--on-waiting)}
            .waiting span{padding:1px 3px;background:var(--waiting)}
            .ghost{border:2px dashed var(--ceiling);color:var(--ink)}
            .swatch.area{background:var(--run1);opacity:.34}.swatch.band{background:var(--waiting);opacity:.32}
            .rows{display:grid;gap:9px}
            .row{display:grid;grid-template-columns:186px minmax(0,1fr) 78px;gap:0 12px;align-items:center;font-size:14px}
            .name{display:flex;gap:8px;align-items:center;line-height:1.25}
            .value{text-align:right;white-space:nowrap}
            .row.run .name,.row.run .value,.net .name,.net .value{font-weight:700}.row.run .name,.row.run .value{color:var(--own)}
            .track{position:relative;min-width:0}
            .stack{display:flex;height:28px}.tall .stack{height:46px}
            .seg{flex:0 0 0;min-width:1px;overflow:hidden;display:flex;align-items:center;justify-content:center;text-align:center;
            font:600 13px/1.2 var(--sans);white-space:nowrap;background-clip:padding-box;border-right:2px solid #0000}
            .seg:last-child{border-right:0}.seg.ghost{border:2px dashed var(--ceiling)}
            .mark{position:absolute;top:-5px;bottom:-5px;margin-left:-2px;border-left:2px dashed var(--ink)}
            .unfold{display:block;width:100%;height:24px}.unfold path{fill:var(--again);opacity:.17}
            .causes{display:grid;grid-template-columns:repeat(auto-fill,minmax(290px,1fr));gap:4px 34px;margin:14px 0 0;font-size:14px}
            .causes li{display:flex;gap:8px;align-items:center}.causes b{margin-left:auto;font-weight:600}
            .causes em{width:4.8em;text-align:right;font-style:normal;color:var(--soft)}
            .panels{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:20px 26px}.panels.single{grid-template-columns:minmax(0,1fr)}
            .panel{display:grid;gap:5px;align-content:start}h4{margin:0 0 4px}
            .panel .line{display:grid;grid-template-columns:18px minmax(0,1fr);gap:9px;align-items:center;font-size:14px}
            .panel .line>div{display:flex;gap:7px;align-items:center;min-width:0}
            .panel .bar{position:relative;flex:none;height:17px;min-width:2px;width:calc((100% - var(--room)*.62em)*var(--v));background:var(--baseline)}
            .panel .bar.stack{background:none}.panel .bar.stack .seg{border-right-width:1px}
            .panel b{font-weight:400;white-space:nowrap}
            .panel .run b{font-weight:700;color:var(--own)}.panel .run .bar:not(.stack){background:var(--own)}
            .panel .reference .bar:not(.stack){background:var(--reference)}
            .panel .ceiling .bar:not(.stack){border:2px dashed var(--ceiling);background:none}
            .bar u{position:absolute;top:4px;height:9px;border:2px solid var(--ink);border-width:0 2px}
            .bar u:before{content:"";position:absolute;left:0;right:0;top:3px;border-top:2px solid var(--ink)}
            .fall .track{height:24px;border-left:1px solid var(--rule)}
            .fall .track i{position:absolute;top:0;height:100%;min-width:3px}

            """
    }()

    private static let lines = """
        .plot{position:relative;height:360px;margin:8px 16px 56px 52px}
        .plot.small{height:92px;margin:12px 10px 28px 46px}
        .plot svg{position:absolute;width:100%;height:100%;overflow:visible}
        .plot path{fill:none;vector-effect:non-scaling-stroke}
        .grid{stroke:var(--grid)}.axis{stroke:var(--soft)}
        .plot .line{stroke:var(--baseline);stroke-width:2;stroke-linejoin:round}
        .plot .line.reference{stroke:var(--reference);stroke-width:2.5}
        .plot .line.ceiling{stroke:var(--ceiling);stroke-dasharray:6 5}
        .plot .line.run{stroke:var(--own);stroke-width:3.5}
        .plot .line.run2{stroke-dasharray:12 4}.plot .line.run3{stroke-dasharray:3 4}.plot .line.run4{stroke-dasharray:12 4 3 4}
        .plot .line:hover{stroke-width:5}
        .plot .here{stroke:var(--run1);stroke-width:1.5}
        .plot .there{stroke:var(--ink);stroke-width:1.3;stroke-dasharray:2 3}
        .plot .band{fill:var(--waiting);opacity:.2}.plot .area{fill:var(--run1);opacity:.32}
        .plot .t{position:absolute;left:var(--x,0%);top:var(--y,100%);font-size:13px;line-height:17px;color:var(--soft);white-space:nowrap}
        .plot .t.x{transform:translate(-50%,8px)}.plot .t.y{transform:translate(calc(-100% - 8px),-50%)}
        .plot .t.axis{left:0;right:0;transform:translateY(29px);text-align:center;white-space:normal}
        .plot .chip{padding:0 3px;border-radius:3px;background:var(--paper);color:var(--ink)}
        .plot .t.centre{transform:translate(-50%,-50%)}.plot .t.right{transform:translate(5px,-50%)}.plot .t.left{transform:translate(calc(-100% - 5px),-50%)}
        .plot .strong,.plot .chip b{color:var(--run1);font-weight:700}
        .plot .key{position:absolute;left:var(--x);top:var(--y);transform:translate(-50%,-50%)}
        .dot{position:absolute;left:var(--x);top:var(--y);width:7px;height:7px;margin:-3.5px;border:1.8px solid var(--baseline);
        border-radius:50%;background:var(--paper)}
        .dot.reference{border-color:var(--reference)}.dot.run{border-color:var(--own)}
        .multiples{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:12px 42px}
        .multiple h4{display:flex;flex-wrap:wrap;gap:0 12px;justify-content:space-between}.multiple h4 span{font-weight:400;color:var(--soft)}
        .plot+.legend{margin-top:-4px}

        """

    private static let tables = """
        details{margin:0 0 20px;font-size:14px}summary{width:fit-content;padding:3px 0;color:var(--run1);cursor:pointer}
        .scroll{overflow-x:auto;margin-top:6px}
        table{width:100%;border-collapse:collapse}
        th,td{padding:5px 10px;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}
        th:first-child{padding-left:0;text-align:left}
        thead th{vertical-align:bottom;color:var(--soft);font-weight:500}tbody th{font-weight:400}
        .own th,.own td{font-weight:600}
        details .how{margin:8px 0 0}

        """

    private static let narrow = """
        @media screen and (max-width:760px){
        header,main,footer{padding-left:16px;padding-right:16px}
        .figures{grid-template-columns:repeat(2,minmax(0,1fr));gap:26px 22px}.number{font-size:28px}
        .keys,.contents,.pair,.checks,.multiples{grid-template-columns:minmax(0,1fr)}.systems,dl{columns:1}
        .panels{grid-template-columns:repeat(2,minmax(0,1fr));gap:20px 18px}
        .rows{gap:13px}.row{grid-template-columns:minmax(0,1fr) auto;gap:3px 10px}
        .row .track{grid-column:1/-1;grid-row:2}
        .seg{font-size:12px}.tall .stack{height:40px}
        .plot{height:310px;margin-left:44px;margin-right:18px;margin-bottom:70px}
        .plot.small{height:92px;margin:12px 10px 28px 46px}
        .wide-only{display:none!important}
        .causes{grid-template-columns:minmax(0,1fr)}
        }
        @media screen and (max-width:430px){.figures{grid-template-columns:minmax(0,1fr)}.themes{margin-left:0}}
        @media print,(min-width:761px){.phone-only{display:none!important}}
        @media (forced-colors:active){.seg,.bar,.bullet i,.bullet u,.swatch,.key,.dot{forced-color-adjust:none}}

        """

    private static let print = """
        @page{margin:15mm 13mm}
        @media print{
        :root{color-scheme:light}
        *{print-color-adjust:exact;-webkit-print-color-adjust:exact}
        body{font-size:10.5pt;background:none;--paper:#fff}
        header,main,footer{max-width:none;padding:0}
        .themes,.contents,.skip,summary{display:none}
        details::details-content{display:block;content-visibility:visible;block-size:auto}
        section,.part{border-bottom:0}.part{margin-top:26px;border-bottom:2px solid var(--ink)}section{padding:20px 0 0}
        h1{margin-top:18px;font-size:24pt}section>h2{font-size:15.5pt}
        h2,.question,.how,figcaption,.part,.list{break-after:avoid}
        figure,.figure,.row,.cautions,.keys,table,tr,.checks,.multiple{break-inside:avoid}
        .plot{height:330px;margin-left:60px;margin-right:36px}.plot.small{margin-left:60px}.plot.small{height:92px}
        .scroll{overflow:visible}th,td{padding:2px;font-size:6.2pt;overflow-wrap:anywhere}th{white-space:normal}
        a{color:inherit;text-decoration:none}
        }

        """
}
